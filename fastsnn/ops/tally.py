"""What gradient sparsity counts of a tensor: for each row the exact zeros, L1, squared L2 and Linf, in float64.

On a CPU in float32 by csrc/cpu/tally.inl, which adds in float32 within 512 numbers (L1 and L2 to 1e-7 of themselves),
in an order that no number of threads changes; elsewhere by torch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.linalg import vector_norm

from . import library


class Counts(NamedTuple):
    """Sums of every sample at every step.

    Attributes:
        sums: float64 [T, B, 4]: zeros (-0 is one), L1, squared L2, Linf; [1, B, 4] of what knows no time.
        numbers: how many numbers a sample has at a step.
    """

    sums: torch.Tensor
    numbers: int


def count(gradient: torch.Tensor, T: int, B: int, *, exact: bool = False) -> Counts:
    """Return the sums of a gradient of T * B samples: [T, B, ...] or [T*B, ...], in any layout.

    `exact` adds in float64 from the first number on, by torch and at several times the cost.
    """
    rows = _in_memory(gradient.detach()).reshape(T * B, -1)
    if not exact and rows.is_cpu and rows.dtype == torch.float32 and rows.numel() and not library.unavailable():
        rows = rows.contiguous()
        sums = rows.new_empty(len(rows), 4, dtype=torch.float64)
        library.run("tally", library.TallyArguments(rows.data_ptr(), sums.data_ptr(), *rows.shape))
    else:
        sums = _reference(rows)
    return Counts(sums.view(T, B, 4), rows.shape[1])


def added(sums: torch.Tensor) -> torch.Tensor:
    """Return what samples come to at every step and over all, [K + 1, 4, T + 1]: zeros, L1, L2 and Linf; zeros at K.

    Args:
        sums: [P, K, T, B, 4], as `count` gives them: of P gradients that count as one, in each of K places.
    """
    P, K, T, B, _ = sums.shape
    if sums.is_cpu and not library.unavailable():
        out = sums.new_empty(K + 1, 4, T + 1)
        library.run("tally_added", library.TallyAddedArguments(sums.data_ptr(), out.data_ptr(), P, K, T, B))
        return out
    together = sums[..., :3].sum(0)
    together = torch.cat([together, together.sum(1, keepdim=True)], 1)
    linf = sums[..., 3].amax(0)
    linf = torch.cat([linf, linf.amax(1, keepdim=True)], 1)
    zeros, l1, squares = together.unbind(-1)
    out = torch.stack([each.sum(-1) for each in (zeros, l1, squares.sqrt(), linf)], 1)
    return torch.cat([out, torch.zeros_like(out[:1])])


def _reference(rows: torch.Tensor) -> torch.Tensor:
    l1, l2 = (vector_norm(rows, order, 1, dtype=torch.float64) for order in (1, 2))
    linf = vector_norm(rows, torch.inf, 1, dtype=torch.float64) if rows.shape[1] else torch.zeros_like(l1)
    return torch.stack([(rows == 0).sum(1).double(), l1, l2.square(), linf], 1)


def _in_memory(gradient: torch.Tensor) -> torch.Tensor:
    """Return the same numbers in the order of memory, where that is channels-last: no order changes what is counted."""
    if gradient.dim() == 5 and not gradient.is_contiguous():
        return gradient.permute(0, 1, 3, 4, 2)
    if gradient.dim() == 4 and not gradient.is_contiguous():
        return gradient.permute(0, 2, 3, 1)
    return gradient
