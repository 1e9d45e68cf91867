"""Where an engine takes over the layers of a network: for a block of code, and only those layers it knows.

A network calls `spiking_layer` and knows nothing of this; the engine (a floor above) gives the function that computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch

# (conv, norm, neuron, x_seq, residual, junction, spikes) -> the layer's output; None: compute it yourself
Compute = Callable[..., torch.Tensor | None]
_compute: ContextVar[Compute | None] = ContextVar("fastsnn_compute", default=None)


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
