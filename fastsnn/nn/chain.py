"""Layers one after another, over time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from .dropout import Dropout
from .layers import norm_fire, over_time, pooled, spiking_layer
from .neurons import IFNode

_Step = tuple[nn.Conv2d | nn.Linear | None, nn.BatchNorm2d | None, IFNode | None]


class Chain(nn.Sequential):
    """A Sequential of modules that know no time, and neurons: [T, B, ...] -> [T, B, ...]; see `chained`.

    Args:
        layers: modules, as in Sequential.
        spikes: whether the input holds spikes.
    """

    def __init__(self, *layers: nn.Module, spikes: bool = False):
        super().__init__(*layers)
        self.spikes = spikes

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        """Return the last module's output."""
        return chained(self, x_seq, spikes=self.spikes)


def chained(layers: Iterable[nn.Module], x_seq: torch.Tensor, *, spikes: bool = False) -> torch.Tensor:
    """Apply layers one after another: [T, B, ...] -> [T, B, ...].

    A convolution or a linear layer, a batch norm and neurons that follow each other are one nn.spiking_layer, so that
    they are computed together; whichever is missing is left out. Everything else is applied to every step.

    Args:
        layers: neurons, Dropout, and modules that know no time.
        x_seq: input of the first.
        spikes: whether it holds spikes, see nn.spiking_layer.
    """
    for step in _steps(list(layers)):
        if isinstance(step, nn.Module):
            x_seq = step(x_seq) if isinstance(step, Dropout) else pooled(step, x_seq)
            spikes &= _keeps_spikes(step)
            continue
        product, norm, neuron = step
        if product is None:
            x_seq = norm_fire(norm, neuron, x_seq)
        elif isinstance(product, nn.Linear) and neuron is None:
            x_seq = over_time(product, x_seq.to(product.weight.dtype))  # logits, which no precision rounds
        else:
            x_seq = spiking_layer(product, norm, neuron, x_seq, spikes=spikes)
        spikes = neuron is not None
    return x_seq


def _keeps_spikes(module: nn.Module) -> bool:
    """Tell whether spikes come out as spikes, or as sums of them that bfloat16 holds, such as means over 2x2."""
    if isinstance(module, nn.AvgPool2d):
        return module.kernel_size in (1, 2, 4)
    return isinstance(module, (nn.Flatten, nn.Identity, nn.MaxPool2d)) or (
        isinstance(module, Dropout) and not module.training
    )


def _steps(layers: list[nn.Module]) -> Iterator[_Step | nn.Module]:
    """Yield what is computed together, as product, norm and neurons (at least one of them), or a module by itself."""

    def take(*kinds: type[nn.Module]) -> nn.Module | None:
        return layers.pop(0) if layers and isinstance(layers[0], kinds) else None

    while layers:
        product = take(nn.Conv2d, nn.Linear)
        step = product, None if isinstance(product, nn.Linear) else take(nn.BatchNorm2d), take(IFNode)
        yield step if any(part is not None for part in step) else layers.pop(0)
