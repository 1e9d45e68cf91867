"""Which cause a zero in the gradient has: the paper's architectural and natural sparsity, told apart by experiment.

A cause is switched off in the backward pass alone: the forward pass, and so every spike and the loss, stay the same.

    max pool   the gradient goes to the whole window, as in average pooling, rather than to the arg-max
    stride     a strided convolution passes its gradient on as if it were computed at every pixel and then averaged
    neuron     the gradient goes through spikes unchanged, at every step by itself: no surrogate, no reset (a dense
               straight-through estimator, Bengio et al. 2013)
    junction   "and", "iand" and "and_not" pass the gradient on to both sides, as "add" does

The first two are architectural, the last two natural (they depend on spikes). What a cause explains at a layer is how
many zeros go when it alone is switched off. Causes overlap: where a max pool and a stride both stop a gradient, neither
alone explains the zero. So the shares need not add up to the whole, and both groups are switched off together as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..ops import check
from .sparsity import Batch, gradient_sparsity
from .watching import kind_of, leaves

ARCHITECTURAL, NATURAL = ("max pool", "stride"), ("neuron", "junction")
CAUSES = (*ARCHITECTURAL, *NATURAL)


class Attribution(NamedTuple):
    """The zeros in the gradient at a layer's input, and what they are due to: shares of all numbers there, 0 to 1.

    Attributes:
        layer, kind: as in LayerGradient.
        zeros: as they are.
        max_pool, stride, neuron, junction: how many fewer there are with this cause alone switched off; below 0 where
            it fills zeros rather than makes them, as neurons do when they carry a gradient back in time.
        architectural, natural: how many fewer with both causes of the group switched off.
        left: zeros that stay with all of them switched off, e.g. weights that are zero.
    """

    layer: str
    kind: str
    zeros: float
    max_pool: float
    stride: float
    neuron: float
    junction: float
    architectural: float
    natural: float
    left: float


def attribute_zeros(
    network: nn.Module, x: torch.Tensor | Iterable[Batch], y: torch.Tensor | None = None, **how
) -> list[Attribution]:
    """Return for every layer what the zeros in its input's gradient are due to: eight times the cost of one gradient.

    Args:
        network: from encoded input or images to logits; left as it was found.
        x: encoded input [T, B, C, H, W] or images, or an iterable of batches (x, y) that can be read again and again.
        y: labels [B]; None with an iterable.
        **how: the gradient is taken: bn, precision; see gradient_sparsity. An attack would go other ways with other
            gradients, so that there is none here.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
    """
    if isinstance(x, Iterator):
        raise TypeError("x is an iterator, which can be read once only; expected a tensor, a list or a data loader.")

    def zeros(*causes: str) -> dict[str, tuple[str, float]]:
        with switched_off(network, *causes):
            rows = gradient_sparsity(network, x, y, underflow=False, **how)
        return {row.layer: (row.kind, row.zeros_in) for row in rows}

    whole, rows = zeros(), []
    without = [zeros(*causes) for causes in (*((cause,) for cause in CAUSES), ARCHITECTURAL, NATURAL)]
    left = zeros(*CAUSES)
    for layer, (kind, share) in whole.items():
        rows.append(Attribution(layer, kind, share, *(share - other[layer][1] for other in without), left[layer][1]))
    return rows


@contextlib.contextmanager
def switched_off(network: nn.Module, *causes: str) -> Iterator[None]:
    """Inside the block, gradients of `network` are free of some causes of zeros; its outputs are what they were.

    Args:
        network: of whose layers those of this package and of torch are known.
        *causes: "max pool", "stride", "neuron", "junction".

    Raises:
        ValueError: an unknown cause.
    """
    for cause in causes:
        check.one_of("causes", cause, CAUSES)
    substitutes = [_SUBSTITUTES[cause] for cause in causes]
    handles = []
    try:
        for _, module in leaves(network):
            for kind, applies, substitute in substitutes:
                if kind_of(module) == kind and applies(module):
                    handles.append(module.register_forward_hook(_instead(substitute)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _instead(substitute):
    def hook(module, inputs, output):
        return _BackwardOf.apply(output, substitute(module, *inputs).view_as(output))

    return hook


class _BackwardOf(torch.autograd.Function):
    """The value of one tensor with the gradient of another."""

    @staticmethod
    def forward(ctx, output, substitute):
        return output.view_as(output)

    @staticmethod
    def backward(ctx, grad):
        return None, grad


def _average(pool: nn.MaxPool2d, x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x.flatten(0, -4), pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)


def _every_pixel(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    frames = F.conv2d(x.flatten(0, -4), conv.weight, conv.bias, 1, conv.padding, conv.dilation, conv.groups)
    return F.avg_pool2d(frames, conv.stride, ceil_mode=True)


def _is_plain_pool(module: nn.Module) -> bool:
    return isinstance(module, nn.MaxPool2d) and module.dilation in (1, (1, 1))


def _is_strided(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and max(module.stride) > 1 and module.padding_mode == "zeros"


_SUBSTITUTES = {  # kind of layer, whether it is meant, and what has the gradient instead
    "max pool": ("max pool", _is_plain_pool, _average),
    "stride": ("convolution", _is_strided, _every_pixel),
    "neuron": ("neuron", lambda neuron: True, lambda neuron, x: x),
    "junction": ("junction", lambda junction: junction.kind != "add", lambda junction, s, r: s + r),
}
