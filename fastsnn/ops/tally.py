"""What gradient sparsity counts of a tensor: for each row the exact zeros, L1, squared L2 and Linf, in float64.

On a CPU in float32 by csrc/cpu/tally.inl, which adds in float32 within 512 numbers (L1 and L2 to 1e-7 of themselves),
in an order that no number of threads changes; elsewhere by torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch.linalg import vector_norm

from . import library
from .layout import is_channels_last


class Counts(NamedTuple):
    """Sums of every sample at every step.

    Attributes:
        table: float64 [K, T, B, 4], of which these are the sums at `place`: what is counted together is kept together.
        place: which.
        numbers: how many numbers a sample has at a step.
    """

    table: torch.Tensor
    place: int
    numbers: int

    @property
    def sums(self) -> torch.Tensor:
        """Return zeros (-0 is one), L1, squared L2 and Linf, [T, B, 4]; [1, B, 4] of what knows no time."""
        return self.table[self.place]

    def to(self, device: torch.device) -> Counts:
        """Return them on another device."""
        return self._replace(table=self.table.to(device))

    @property
    def address(self) -> int:
        """Return where these sums begin."""
        return self.table.data_ptr() + self.place * self.table.stride(0) * self.table.itemsize


def count(gradient: torch.Tensor, T: int, B: int, *, exact: bool = False) -> Counts:
    """Return the sums of a gradient of T * B samples: [T, B, ...] or [T*B, ...], in any layout.

    `exact` adds in float64 from the first number on, by torch and at several times the cost.
    """
    by_kernel = gradient.is_cpu and gradient.dtype == torch.float32 and not library.unavailable()
    if exact or not by_kernel or not gradient.numel():
        rows = _in_memory(gradient.detach()).reshape(T * B, -1)
        return Counts(_reference(rows).view(1, T, B, 4), 0, rows.shape[1])
    if not _is_dense(gradient):
        gradient = _in_memory(gradient.detach()).contiguous()
    table, numbers = torch.empty(1, T, B, 4, dtype=torch.float64, device="cpu"), gradient.numel() // (T * B)
    library.run("tally", library.TallyArguments(gradient.data_ptr(), table.data_ptr(), T * B, numbers))
    return Counts(table, 0, numbers)


class Addition:
    """Adds sums of gradients up over their samples, to rows of totals; made once for all passes that are alike.

    Args:
        places: for each, how many gradients count as one there, and the rows that their sums are added to.
        device: of sums and totals.

    Attributes:
        times: how often it did, an int64 tensor.
    """

    def __init__(self, places: Sequence[tuple[int, Sequence[int]]], device: torch.device):
        self.times = torch.zeros((), dtype=torch.int64, device=device)
        few = max(parts for parts, _ in places) <= library.MOST_ADDED
        if few and device.type == "cpu" and not library.unavailable():
            self._calls = list(_calls(places))
            return
        self._calls = None
        ends, most = list(accumulate(parts for parts, _ in places)), max(parts for parts, _ in places)
        parts = [(end - parts, end) for (parts, _), end in zip(places, ends, strict=True)]
        which = [[first + i if first + i < end else ends[-1] for first, end in parts] for i in range(most)]
        self._which = torch.tensor(which, device=device)  # [most, places]: of the sums, and of zeros behind them
        rows = [(row, place) for place, (_, rows) in enumerate(places) for row in rows]
        self._rows, self._of_rows = torch.tensor(rows, device=device).unbind(1)

    def __call__(self, counts: Sequence[Counts], totals: torch.Tensor) -> None:
        """Add sums, all places' in turn, to totals [rows, 4, T + 1] in place: zeros, L1, L2 and Linf.

        Each step is added to its own, all of them together to the last. Sums of what knows no time have one step, where
        T are more: they are added to the last alone.
        """
        counts = [one if one.table.device == totals.device else one.to(totals.device) for one in counts]
        (_, steps, B, _), T = counts[0].table.shape, totals.shape[-1] - 1
        if self._calls is None:
            added = self._by_torch([one.sums for one in counts])
            if steps != T:
                totals, added = totals[..., -1:], added[..., -1:]
            totals.index_add_(0, self._rows, added)
            self.times.add_(1)
            return
        for first, last, places, table in self._calls:
            addresses = tuple(one.address for one in counts[first:last])
            pointers = (totals, None if first else self.times, table)
            arguments = (addresses, *map(library.address, pointers), places, steps, B, T)
            library.run("tally_added", library.TallyAddedArguments(*arguments))

    def _by_torch(self, sums: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return what is added to every row, [rows, 4, steps + 1]."""
        sums = torch.stack([*sums, torch.zeros_like(sums[0])])[self._which]
        together = sums[..., :3].sum(0)
        together = torch.cat([together, together.sum(1, keepdim=True)], 1)
        linf = sums[..., 3].amax(0)
        linf = torch.cat([linf, linf.amax(1, keepdim=True)], 1)
        zeros, l1, squares = together.unbind(-1)
        return torch.stack([each.sum(-1) for each in (zeros, l1, squares.sqrt(), linf)], 1)[self._of_rows]


def _calls(places: Sequence[tuple[int, Sequence[int]]]) -> Iterator[tuple[int, int, int, torch.Tensor]]:
    """Yield for every call of the kernel: where its sums begin and end, how many places they have, and their table."""
    first, last, here = 0, 0, []
    for parts, rows in places:
        if last + parts - first > library.MOST_ADDED:
            yield first, last, len(here), _table(here)
            first, here = last, []
        here.append((parts, rows))
        last += parts
    yield first, last, len(here), _table(here)


def _table(places: Sequence[tuple[int, Sequence[int]]]) -> torch.Tensor:
    """Return the table of `struct TallyAdded`."""
    firsts = [accumulate(numbers, initial=0) for numbers in zip(*((p, len(rows)) for p, rows in places), strict=True)]
    heads = [number for both in zip(*firsts, strict=True) for number in both]
    return torch.tensor([*heads, *(row for _, rows in places for row in rows)], device="cpu")


def _reference(rows: torch.Tensor) -> torch.Tensor:
    l1, l2 = (vector_norm(rows, order, 1, dtype=torch.float64) for order in (1, 2))
    linf = vector_norm(rows, torch.inf, 1, dtype=torch.float64) if rows.shape[1] else torch.zeros_like(l1)
    return torch.stack([(rows == 0).sum(1).double(), l1, l2.square(), linf], 1)


def _is_dense(gradient: torch.Tensor) -> bool:
    """Tell whether rows lie one behind the other, each in any order."""
    by_channels = gradient.is_contiguous(memory_format=torch.channels_last) if gradient.dim() == 4 else False
    return by_channels or gradient.is_contiguous() or is_channels_last(gradient)


def _in_memory(gradient: torch.Tensor) -> torch.Tensor:
    """Return the same numbers in the order of memory, where that is channels-last: no order changes what is counted."""
    if gradient.dim() == 5 and not gradient.is_contiguous():
        return gradient.permute(0, 1, 3, 4, 2)
    if gradient.dim() == 4 and not gradient.is_contiguous():
        return gradient.permute(0, 2, 3, 1)
    return gradient
