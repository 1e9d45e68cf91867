"""A batch as one row for each sample, wherever its batch axis is, and sums of a row in one order."""

from __future__ import annotations

from collections.abc import Callable

import torch


def rows(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Return x as [B, everything else], its batch axis first."""
    return x.movedim(axis, 0).flatten(1)


def of_each(reduction: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, axis: int) -> torch.Tensor:
    """Return reduction(rows) [B]; on a CPU in the same order for any batch and number of threads.

    Torch splits a sum over its threads where it is the only one, so a lone sample goes in twice.
    """
    flat = rows(x, axis)
    return reduction(flat.repeat(2, 1))[:1] if len(flat) == 1 else reduction(flat)


def chosen(which: torch.Tensor, these: torch.Tensor, others: torch.Tensor, axis: int) -> torch.Tensor:
    """Return these where which [B] says so, and others elsewhere, by whole samples; maybe one of the two itself.

    Where values can be read without waiting, only samples that change are copied: half of the cost, or none.
    """
    if not _read_at_once(which):
        return torch.where(beside(which, these, axis), these, others)
    ids = [i for i, one in enumerate(which.tolist()) if one]
    if not ids or len(ids) == len(which):
        return these if ids else others
    out = others.clone()
    for i in ids:
        out.select(axis, i).copy_(these.select(axis, i))
    return out


def _read_at_once(tensor):
    return tensor.device.type == "cpu"


def beside(value: torch.Tensor, x: torch.Tensor, axis: int) -> torch.Tensor:
    """Return one value for each sample [B] in a shape that goes with x."""
    return value.view([-1 if i == axis else 1 for i in range(x.dim())])
