"""Where an engine takes over the layers of a network: for a block of code, and only those layers it knows.

A network calls `spiking_layer` and knows nothing of this; the engine (a floor above) gives the function that computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple, Protocol

import torch
from torch import nn

from ..ops.tally import Counts

# (conv, norm, neuron, x_seq, residual, junction, spikes) -> the layer's output; None: compute it yourself.
# What takes counts comes behind where somebody counts, see Counting.
Compute = Callable[..., torch.Tensor | None]


class LayerCounts(NamedTuple):
    """What was counted of a layer's gradients, side by side.

    Attributes:
        output: at the layer's output.
        spikes: at the output of its neurons: in front of the junction, unless that joins the current.
        behind_norm: at the output of its norm, or of its product where it has none.
        product: at the output of its product.
        residual: at the residual, if there is one.
    """

    output: Counts
    spikes: Counts
    behind_norm: Counts
    product: Counts
    residual: Counts


# Called in each backward pass through a layer: with grad_out, its counts, and grad_x (None where nobody asked for it).
# grad_x is left to be counted: often the layer in front counts it anyway, as its grad_out.
TakeCounts = Callable[[torch.Tensor, LayerCounts, torch.Tensor | None], None]


class Counting(Protocol):
    """Who has gradients counted where they are computed: analysis.gradient_sparsity.

    Attributes:
        may_replay: whether a pass may be replayed that was seen once: it then counts as when it was seen.
    """

    may_replay: bool

    def layer(self, conv, norm, neuron, junction, T: int) -> TakeCounts:
        """Hear of a spiking layer that an engine computes, with parts of None where it has none."""

    def around(self, module: nn.Module, x_seq: torch.Tensor, compute: Callable) -> torch.Tensor:
        """Return compute(x_seq), what the module computes, and see the gradients at both."""

    def listens_alone(self, module: nn.Module) -> bool:
        """Tell whether all hooks on a module are its own."""


_compute: ContextVar[Compute | None] = ContextVar("fastsnn_compute", default=None)
_counting: ContextVar[Counting | None] = ContextVar("fastsnn_counting", default=None)


@contextlib.contextmanager
def computed_by(compute: Compute) -> Iterator[None]:
    """Let `compute` have every spiking layer inside the block; what it returns None for computes itself."""
    token = _compute.set(compute)
    try:
        yield
    finally:
        _compute.reset(token)


def engine() -> Compute | None:
    """Return the function in force, or None."""
    return _compute.get()


@contextlib.contextmanager
def counted_by(counting: Counting) -> Iterator[None]:
    """Let engines tell `counting` of every layer inside the block, and give it the counts of its gradients."""
    token = _counting.set(counting)
    try:
        yield
    finally:
        _counting.reset(token)


def counting() -> Counting | None:
    """Return the function in force, or None."""
    return _counting.get()
