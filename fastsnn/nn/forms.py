"""Where an engine says how products are to be computed: a choice that holds for a block of code.

A network calls `product` and knows nothing of this; the engine (a floor above) gives the function that chooses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import nn

Form = Callable[[torch.Tensor], torch.Tensor]  # frames [N, C, H, W] -> [N, planes, h, w]
Choose = Callable[[nn.Conv2d, torch.Tensor, torch.dtype], Form | None]
_choose: ContextVar[Choose | None] = ContextVar("fastsnn_forms", default=None)


@contextlib.contextmanager
def chosen_by(choose: Choose) -> Iterator[None]:
    """Let `choose` say, inside the block, how each product is computed; None from it means: as the layer itself."""
    token = _choose.set(choose)
    try:
        yield
    finally:
        _choose.reset(token)


def form_for(module: nn.Conv2d, frames: torch.Tensor, dtype: torch.dtype) -> Form | None:
    """Return the form in force for a layer, its input and the type of its products, or None."""
    choose = _choose.get()
    return None if choose is None else choose(module, frames, dtype)
