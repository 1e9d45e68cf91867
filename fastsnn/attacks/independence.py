"""Where samples do not know of each other: a sample's gradient has the same bits, whatever else is in its batch.

Copies of a batch in one pass rest on this, samples that leave early, and results that no batch size changes. Layers of
this package compute every sample by itself. What is left is the order of sums, and torch's own depends on the batch in
two places (2.14, CPU): the mean over 8 or more time steps, and the input gradient of a linear layer. `in_one_order`
replaces those two. tests/attacks/test_independence.py holds whole networks to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from ..nn import RateEncoder, in_force, is_watched
from ..nn.norms import uses_batch_statistics
from ..ops import library
from ..ops.matrix import Matrix

_KNOWN = (
    *(nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.Identity, nn.Flatten),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
)


def are_independent(network: Callable) -> bool:
    """Tell whether a network in the state it is attacked in surely computes every sample by itself, in the same bits.

    Surely: it is made of this package's modules and a few of torch's, nobody watches one, and norms use running
    statistics. On a GPU the sums may still be reordered with the size of a batch.
    """
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    if not modules or not all(map(_is_known, modules)):
        return False
    if any(isinstance(module, nn.BatchNorm2d) and uses_batch_statistics(module) for module in modules):
        return False
    return bool(not library.unavailable() or any(parameter.is_cuda for parameter in network.parameters()))


def are_known(network: Callable, counting: in_force.Counting | None = None) -> bool:
    """Tell whether a network is made of this package's modules and a few of torch's alone, and nobody watches one.

    Nobody but `counting`, where passes may be replayed that it saw.
    """
    counting = counting if counting is not None and counting.may_replay else None
    return isinstance(network, nn.Module) and all(_is_known(module, counting) for module in network.modules())


def _is_known(module: nn.Module, counting: in_force.Counting | None = None) -> bool:
    if not _is_known_kind(type(module)) or "forward" in vars(module):
        return False
    return not is_watched(module) or (counting is not None and counting.listens_alone(module))


@functools.cache
def _is_known_kind(kind: type) -> bool:
    known = kind in _KNOWN or kind.__module__.partition(".")[0] == __name__.partition(".")[0]
    return known and kind is not RateEncoder  # it draws for the batch as a whole, and anew in every call


def draws_for_each(network: Callable) -> bool:
    """Tell whether a network draws from one generator for each image, so that no image may leave the batch."""
    encoders = network.modules() if isinstance(network, nn.Module) else ()
    return any(isinstance(one, RateEncoder) and isinstance(one.generator, Sequence) for one in encoders)


class in_one_order(TorchFunctionMode):  # noqa: N801 - used as a block: with in_one_order():
    """Inside the block, means over time and linear layers on a CPU add up in one order, for frozen weights."""

    def __init__(self):
        super().__init__()
        self.linears: dict[int, tuple[torch.Tensor, Matrix, Matrix]] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Compute the two, and leave everything else to torch."""
        kwargs = kwargs or {}
        if func is torch.Tensor.mean and args[1:] == (0,) and not kwargs and _in_float32_on_cpu(args[0]):
            return functools.reduce(torch.add, args[0].unbind()) / len(args[0])
        if func is F.linear and _in_float32_on_cpu(args[0]) and not args[1].requires_grad:
            return self._linear(*args, **kwargs)
        return func(*args, **kwargs)

    def _linear(self, x, weight, bias=None):
        if id(weight) not in self.linears:
            matrix = weight.detach()
            self.linears[id(weight)] = (weight, Matrix(matrix.t()), Matrix(matrix))  # the weight, so that its id stays
        out = _Linear.apply(x, *self.linears[id(weight)][1:])
        return out if bias is None else out + bias


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, forward, backward):
        ctx.backward_product = backward
        return forward(x.flatten(0, -2)).unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx, grad):
        return ctx.backward_product(grad.flatten(0, -2)).unflatten(0, grad.shape[:-1]), None, None


def _in_float32_on_cpu(x: torch.Tensor) -> bool:
    return x.is_cpu and x.dtype == torch.float32 and x.dim() > 1 and x.numel() > 0
