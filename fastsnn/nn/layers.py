"""A spiking layer, and the passes it is made of: a product over all time steps, then norm, neurons and junction."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from ..ops import check, dispatcher
from ..ops.integrate_fire.neuron import JUNCTIONS
from ..ops.norm_fire import norm_fire as fire_with_batch_statistics
from ..ops.pool import Window, fits
from ..ops.pool import pool as pool_over_time
from . import in_force
from .neurons import IFNode, LIFNode
from .norms import follow, running_affine, uses_batch_statistics
from .precision import current, product_dtype

_torch = nn.modules.module
_EVERY_MODULES_HOOKS = (
    _torch._global_forward_hooks,
    _torch._global_forward_pre_hooks,
    _torch._global_backward_hooks,
    _torch._global_backward_pre_hooks,
)


class Junction(nn.Module):
    """What combines a block with its shortcut: a module, so that it can be watched.

    Args:
        kind: "current" adds the shortcut to the neurons' current, so that they fire on the sum; "add", "and", "iand" or
            "and_not" combine it with their spikes (Fang et al. 2021, eq. 5), see functional.integrate_fire.
    """

    def __init__(self, kind: str):
        super().__init__()
        self.kind = check.one_of("kind", kind, ("current", *JUNCTIONS))

    def forward(self, out: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Combine a current or spikes [T, B, ...] with a residual of their shape, in a pass of its own."""
        return charged(out, residual, self.kind) if self.kind == "current" else join(out, residual, self.kind)

    def extra_repr(self) -> str:
        """Name the kind."""
        return repr(self.kind)


def over_time(module: nn.Module, x_seq: torch.Tensor) -> torch.Tensor:
    """Apply a module that knows no time to every step: [T, B, ...] -> [T, B, ...]."""
    return module(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2])


def spiking_layer(
    conv: nn.Conv2d | nn.Linear,
    norm: nn.BatchNorm2d | None,
    neuron: IFNode | None,
    x_seq: torch.Tensor,
    residual: torch.Tensor | None = None,
    junction: Junction | str | None = None,
    *,
    spikes: bool = True,
) -> torch.Tensor:
    """Product over time, batch norm, neurons and a junction with a residual: the layer that networks are made of.

    It is computed by the engine in force (see `in_force`), if there is one and nobody watches a part of the layer.

    Args:
        conv: a convolution or a linear layer, applied to every step.
        norm: batch norm over its channels; in training mode it uses (and updates) batch statistics. None: no norm.
        neuron: the neurons behind it. None: the layer's output is their current.
        x_seq: input [T, B, C, H, W], or [T, B, features] for a linear layer.
        residual: what the junction combines with the layer, of the shape of its output.
        junction: how: a Junction, or the name of its kind.
        spikes: whether x_seq holds spikes or small sums of them, see precision.product_dtype; anything else is computed
            in float32 in every precision.
    """
    compute, parts = in_force.engine(), [part for part in (conv, norm, neuron, junction) if isinstance(part, nn.Module)]
    if compute is not None and current() != "reference" and not any(map(is_watched, parts)):
        counting = in_force.counting()
        take = () if counting is None else (counting.layer(conv, norm, neuron, junction, x_seq.shape[0]),)
        out = compute(conv, norm, neuron, x_seq, residual, _kind(junction), spikes, *take)
        if out is not None:
            return out
    return norm_fire(norm, neuron, product(conv, x_seq, spikes=spikes), residual, junction)


def product(module: nn.Conv2d | nn.Linear, x_seq: torch.Tensor, *, spikes: bool = True) -> torch.Tensor:
    """Apply a convolution or a linear layer to every step: [T, B, ...] -> [T, B, ...]; `spikes` as in spiking_layer."""
    if current() == "reference":
        return over_time(module, x_seq)
    dtype = product_dtype(spikes, x_seq.device)
    if dtype == torch.float32 or is_watched(module) or type(module) is not nn.Conv2d:
        return over_time(module, x_seq.to(torch.float32)).to(dtype)  # a subclass may compute something else
    bias = None if module.bias is None else module.bias.to(dtype)
    out = module._conv_forward(x_seq.flatten(0, 1).to(dtype), module.weight.to(dtype), bias)
    return out.unflatten(0, x_seq.shape[:2])


def stored(spikes: torch.Tensor) -> torch.Tensor:
    """Return spikes in the storage type that the precision in force gives them: bfloat16 under "fast" on a GPU."""
    return spikes if current() == "reference" else spikes.to(product_dtype(True, spikes.device))


def pooled(pool: nn.Module, x_seq: torch.Tensor) -> torch.Tensor:
    """Apply a pool to every step [T, B, C, H, W], where possible by a kernel that keeps little for the gradient."""
    counting = in_force.counting()
    if counting is not None and isinstance(pool, (nn.MaxPool2d, nn.AvgPool2d)):
        return counting.around(pool, x_seq, partial(_pooled, pool))
    return _pooled(pool, x_seq)


def _pooled(pool: nn.Module, x_seq: torch.Tensor) -> torch.Tensor:
    window = _window(pool) if type(pool) in (nn.MaxPool2d, nn.AvgPool2d) else None
    if window is None or current() == "reference" or is_watched(pool) or not fits(x_seq, window):
        return over_time(pool, x_seq)
    return pool_over_time(x_seq, window)


def _window(pool: nn.Module) -> Window | None:
    """Return the window of one of torch's pools; None where it is no square one, or has other options."""
    sides = pool.kernel_size, pool.stride, pool.padding
    if pool.ceil_mode or any(type(side) is not int for side in sides):
        return None
    is_max = type(pool) is nn.MaxPool2d
    plain = (
        pool.dilation == 1 and not pool.return_indices
        if is_max
        else pool.count_include_pad and not pool.divisor_override
    )
    return Window(is_max, *sides) if plain else None


def norm_fire(
    norm: nn.BatchNorm2d | None,
    neuron: IFNode | None,
    x_seq: torch.Tensor,
    residual: torch.Tensor | None = None,
    junction: Junction | str | None = None,
) -> torch.Tensor:
    """Batch norm, neurons and a junction: in one pass (two with the batch's statistics) where nobody watches them.

    Args:
        norm: batch norm over the channels of x_seq; in training mode it uses (and updates) batch statistics. None: no
            norm.
        neuron: the neurons behind it. None: their current is returned.
        x_seq: input current [T, B, C, H, W].
        residual: what the junction combines with the current or the spikes, like x_seq.
        junction: as in spiking_layer.
    """
    kind, counted = _kind(junction), in_force.counting() is not None
    if norm is None or neuron is None or kind == "current" or counted:
        return fire(neuron, normed(norm, x_seq), residual, junction)
    if current() == "reference" or is_watched(neuron) or _is_watched(junction):
        return join(neuron(over_time(norm, x_seq)), residual, junction)
    if is_watched(norm) or type(norm) is not nn.BatchNorm2d:
        return neuron(over_time(norm, x_seq), residual=residual, junction=kind)
    if not uses_batch_statistics(norm):
        scale, shift = running_affine(norm)
        return neuron(x_seq, scale=scale, shift=shift, residual=residual, junction=kind)
    if type(neuron) not in (IFNode, LIFNode) or dispatcher.is_needed(x_seq, residual, norm.weight):
        return neuron(normed(norm, x_seq), residual=residual, junction=kind)
    inputs = (channels_last(x_seq), norm.weight, norm.bias, norm.eps, neuron.neuron, residual, kind)
    out, batch = fire_with_batch_statistics(*inputs)
    follow(norm, batch)
    return out


def normed(norm: nn.BatchNorm2d | None, x_seq: torch.Tensor) -> torch.Tensor:
    """Apply a batch norm (None: nothing) by torch: [T, B, C, H, W] -> the same."""
    if norm is None:
        return x_seq
    counting = in_force.counting()
    return _normed(norm, x_seq) if counting is None else counting.around(norm, x_seq, partial(_normed, norm))


def _normed(norm: nn.BatchNorm2d, x_seq: torch.Tensor) -> torch.Tensor:
    if current() != "reference" and isinstance(norm, nn.BatchNorm2d) and uses_batch_statistics(norm):
        x_seq = x_seq.contiguous()  # torch's batch statistics of channels-last frames are ten times less exact
    return over_time(norm, x_seq)


def fire(
    neuron: IFNode | None, x_seq: torch.Tensor, residual: torch.Tensor | None, junction: Junction | str | None
) -> torch.Tensor:
    """Neurons (None: none) on a current [T, B, ...], and a junction; arguments as in norm_fire."""
    if neuron is None or _kind(junction) == "current":
        x_seq = junction(x_seq, residual) if _is_watched(junction) else charged(x_seq, residual, _kind(junction))
        residual = junction = None
    if neuron is None:
        return x_seq
    counting = in_force.counting()
    if residual is None and counting is not None:
        return counting.around(neuron, x_seq, neuron)
    if current() == "reference" or is_watched(neuron) or _is_watched(junction):
        return join(neuron(x_seq), residual, junction)
    return neuron(x_seq, residual=residual, junction=_kind(junction))


def charged(x_seq: torch.Tensor, residual: torch.Tensor | None, junction: str | None) -> torch.Tensor:
    """Return the current x_seq, to which junction "current" adds the residual (None: there is none).

    Raises:
        ValueError, TypeError: another junction, one without the other, or a residual of another shape.
    """
    if junction is not None:
        check.one_of("junction", junction, ("current",))
    if (residual is None) != (junction is None):
        raise ValueError(f"residual and junction go together; junction is {junction!r}.")
    if residual is None:
        return x_seq
    check.companion("residual", residual, x_seq.shape, "the layer's current", x_seq.device)
    return x_seq + residual


def _kind(junction: Junction | str | None) -> str | None:
    return junction.kind if isinstance(junction, Junction) else junction


def _is_watched(junction: Junction | str | None) -> bool:
    return isinstance(junction, Junction) and is_watched(junction)


def channels_last(x_seq: torch.Tensor) -> torch.Tensor:
    """Return [T, B, C, H, W] with the channels innermost in memory."""
    frames = x_seq.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return frames.unflatten(0, x_seq.shape[:2])


def affine(x_seq: torch.Tensor, scale: torch.Tensor | None, shift: torch.Tensor | None) -> torch.Tensor:
    """Return x_seq [T, B, C, ...] in float32, times scale [C] plus shift [C] where there is a scale."""
    current = x_seq.float()
    if scale is None:
        return current
    axes = (-1, *(1,) * (x_seq.dim() - 3))
    return current * scale.view(axes) + shift.view(axes)


def join(spikes: torch.Tensor, residual: torch.Tensor | None, junction: Junction | str | None) -> torch.Tensor:
    """Combine spikes with a residual in a pass of its own, in SpikingJelly's order of operations."""
    if _is_watched(junction):
        return junction(spikes, residual)
    kind = _kind(junction)
    if kind is None:
        return spikes
    if kind == "add":
        return residual + spikes
    if kind == "and":
        return residual * spikes
    return residual * (1.0 - spikes) if kind == "iand" else spikes * (1.0 - residual)


def is_watched(module: nn.Module) -> bool:
    """Tell whether somebody has hooks on a layer, which must then be called as such rather than fused."""
    return any(hooks_on(module))


def hooks_on(module: nn.Module) -> tuple[dict[int, object], ...]:
    """Return the hooks that are called with a module, also those on all modules, by the number of their handle."""
    own = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return *own, *_EVERY_MODULES_HOOKS
