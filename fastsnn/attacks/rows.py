"""A batch as one row for each sample, wherever its batch axis is, and sums of a row in one order."""

from __future__ import annotations

from collections.abc import Callable

import torch


def rows(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Return x as [B, everything else], its batch axis first."""
    return x.movedim(axis, 0).flatten(1)


def of_each(
    reduction: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    axis: int,
    value_by_value: Callable[..., torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return reduction(rows) [B]; on a CPU in the same order for any batch and number of threads.

    Torch splits a sum over its threads where it is the only one, so a lone sample goes in twice. Rows are made in the
    pass that applies value_by_value (torch.square, torch.abs), where it is given.
    """
    if value_by_value is None:
        flat = rows(x, axis)
    else:
        moved = x.movedim(axis, 0)
        flat = value_by_value(moved, out=torch.empty(moved.shape, dtype=x.dtype, device=x.device)).flatten(1)
    return reduction(flat.repeat(2, 1))[:1] if len(flat) == 1 else reduction(flat)


def put(which: torch.Tensor, these: torch.Tensor, into: torch.Tensor, axis: int) -> None:
    """Write the samples of these that which [B] names over those in `into`.

    Where values can be read without waiting, only samples that change are copied.
    """
    if not read_at_once(which):
        torch.where(beside(which, these, axis), these, into, out=into)
        return
    chosen = which.tolist()
    if all(chosen):
        into.copy_(these)
        return
    if not any(chosen):
        return
    for one, new, old in zip(chosen, these.unbind(axis), into.unbind(axis), strict=True):
        if one:
            old.copy_(new)  # half of the time of index_copy_


def read_at_once(tensor: torch.Tensor) -> bool:
    """Tell whether values of a tensor can be read without waiting for a device."""
    return tensor.device.type == "cpu"


def beside(value: torch.Tensor, x: torch.Tensor, axis: int) -> torch.Tensor:
    """Return one value for each sample [B] in a shape that goes with x."""
    return value.view([-1 if i == axis else 1 for i in range(x.dim())])
