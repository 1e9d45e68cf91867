"""Sums over gradients, so that a stream of batches needs no memory: zeros, and the norms of every sample.

A gradient is [T, B, ...] or folded [T*B, ...]; one that knows no time is [B, ...]. Sums are kept for every time step,
and over all of them. Counts wait until their pass is over; `settle` then adds them up for all layers at once, in place
and without a look at a value, so that a replayed pass adds up as well (see ops.tape).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch

from ..ops import tape
from ..ops.tally import Addition, Counts, count


class Tally:
    """What is counted at one side (input or output) of one layer, until its book is settled.

    Args:
        book: that adds it up.
        row: of the side in the book.
        exact: whether `take` adds in float64 from the first number on; see ops.tally.
    """

    def __init__(self, book: Book, row: int, exact: bool):
        self.T, self.exact, self.row, self.waiting = book.T, exact, row, book.waiting

    def take(self, gradients: Sequence[torch.Tensor], B: int, again: bool) -> None:
        """Add a pass's gradients at this side: one, or one for each input of the layer.

        `again`: of a pass in which nothing underflows, whose zeros are structural.
        """
        self.add([self.counted(gradient, B) for gradient in gradients], again)

    def add(self, parts: Sequence[Counts], again: bool) -> None:
        """Add gradients that are counted."""
        self.waiting[again].append((self.row, parts))

    def counted(self, gradient: torch.Tensor, B: int) -> Counts:
        """Count [T, B, ...], [T*B, ...] or [B, ...]."""
        return count(gradient, self.steps(gradient, B), B, exact=self.exact)

    def steps(self, gradient: torch.Tensor, B: int) -> int:
        """Return the time steps of a gradient: T, or 1 of what knows none; refuse what is neither."""
        # with as many samples as steps, [B, classes] and [B, C, H, W] could be taken for steps
        has_steps = gradient.shape[:2] == (self.T, B) and (self.T != B or gradient.dim() in (3, 5))
        if has_steps or gradient.shape[0] == self.T * B:
            return self.T
        if gradient.shape[0] == B:
            return 1
        shape, first = list(gradient.shape), f"[{self.T}, {B}, ...], [{self.T * B}, ...] or [{B}, ...]"
        raise ValueError(f"network has a layer whose gradient has shape {shape}, expected {first}.")


class _Offered(NamedTuple):
    """A gradient that waits to be counted.

    Attributes:
        gradient: kept until then, so that nothing else lies in its place.
        version: torch's count of its changes.
        takers: who gets the counts, and whether in a pass in which nothing underflows.
    """

    gradient: torch.Tensor
    version: int | None
    takers: list[tuple[Tally, bool]]


class Uncounted:
    """Gradients that are counted a little later, as the next layer of the pass may count them anyway.

    A gradient at a layer's input is that at the output of the layer in front, which its neurons' kernel counts. Those
    that nobody counted are, before they leave the cache: when MOST others have come, or the pass is over.
    """

    MOST = 2  # two branches of a block come before the layer in front of one

    def __init__(self):
        self._waiting: dict[tuple, _Offered] = {}

    def offer(self, gradient: torch.Tensor, T: int, B: int, tally: Tally, again: bool) -> None:
        """Have a gradient of T * B samples counted for a tally."""
        offered = _Offered(gradient, _version(gradient), [])
        self._waiting.setdefault(_identity(gradient, T, B), offered).takers.append((tally, again))
        self.settle(self.MOST)

    def counted(self, gradient: torch.Tensor, counts: Counts) -> None:
        """Tell what the counts of a gradient are."""
        offered = self._waiting.pop(_identity(gradient, *counts.table.shape[1:3]), None)
        if offered is not None:
            self._give(offered, counts)

    def settle(self, kept: int = 0) -> None:
        """Count all but the `kept` that came last."""
        while len(self._waiting) > kept:
            key = next(iter(self._waiting))
            offered = self._waiting.pop(key)
            self._give(offered, count(offered.gradient, *key[-2:]))

    def forget(self) -> None:
        """Let go of what a pass left that failed."""
        self._waiting.clear()

    def _give(self, offered: _Offered, counts: Counts) -> None:
        if _version(offered.gradient) != offered.version:
            which = f"a gradient of shape {list(offered.gradient.shape)}"
            raise ValueError(f"network changes {which} in place on its way; expected a new tensor, or engine=None.")
        for tally, again in offered.takers:
            tally.add([counts], again)


def _identity(gradient: torch.Tensor, T: int, B: int) -> tuple:
    """Return what is the same for two tensors that lie in the same place, of which one is alive."""
    return gradient.data_ptr(), gradient.shape, gradient.stride(), gradient.dtype, T, B


def _version(gradient: torch.Tensor) -> int | None:
    return None if gradient.is_inference() else gradient._version


class Seen(NamedTuple):
    """What all passes saw, side by side.

    Attributes:
        columns: float64 [sides, T + 1, 5]: the share of exact zeros (-0 is one), that of the passes in which nothing
            underflows, and L1, L2 and Linf of a sample, on average; at each step and over all. NaN: of nothing.
        samples: of every side, in passes as they are.
        passes: how many these were.
        finite: whether all numbers of those other passes were.
    """

    columns: torch.Tensor
    samples: list[int]
    passes: list[int]
    finite: bool


class _Plan(NamedTuple):
    """What passes that are alike have in common.

    Attributes:
        add: adds their sums up.
        rows: of the sides, int64 [K].
        numbers: how many numbers a pass has of each, float64 [K, T + 1]: at each step, and over all.
        samples: of a pass.
    """

    add: Addition
    rows: torch.Tensor
    numbers: torch.Tensor
    samples: int


class Book:
    """The sides of layers that were met together, and the sums over all passes that were settled.

    Attributes:
        sums: float64 [2, sides, 4, T + 1]: of passes as they are, and of those in which nothing underflows; zeros, and
            L1, L2 and Linf of every sample, added up; at each step and over all.
        waiting: the counts of both kinds of passes that were not settled yet, with the row of their side.
    """

    def __init__(self, sides: int, T: int, device: torch.device):
        self.T = T
        with tape.aside(), torch.inference_mode(False):  # as in a plan
            self.sums = torch.zeros(2, sides, 4, T + 1, dtype=torch.float64, device=device)
        self.waiting: tuple[list[tuple[int, Sequence[Counts]]], ...] = ([], [])
        self._plans: tuple[dict[Hashable, _Plan], dict[Hashable, _Plan]] = ({}, {})

    def settle(self) -> None:
        """Add what waits, all sides together whose passes had the same samples.

        Two sides that see the same gradient, such as a convolution's output and its norm's input, are added up once.
        """
        for again, waiting in enumerate(self.waiting):
            while waiting:
                rows, left, groups = set(), [], {}
                for row, parts in waiting:
                    if row in rows:  # of a layer that was called twice: a row is added to once at a time
                        left.append((row, parts))
                        continue
                    rows.add(row)
                    shapes = {part.table.shape[1:3] for part in parts}
                    if len(shapes) > 1:
                        each = " and ".join(str(list(shape)) for shape in sorted(shapes))
                        what = f"a layer with gradients of {each} time steps and samples at its inputs"
                        raise ValueError(f"network has {what}; expected the same of all.")
                    group = groups.setdefault(shapes.pop(), {})
                    group.setdefault(tuple(map(id, parts)), (parts, []))[1].append(row)
                for (steps, B), group in groups.items():
                    self._add(again, steps, B, list(group.values()))
                waiting[:] = left

    def forget(self) -> None:
        """Drop what waits."""
        for waiting in self.waiting:
            waiting.clear()

    def read(self) -> Seen:
        """Return what was seen."""
        sums = self.sums.cpu()
        numbers, (samples, all_passes) = torch.zeros_like(sums[:, :, 0]), sums.new_zeros(2, sums.shape[1]).long()
        for again, plans in enumerate(self._plans):
            for plan in plans.values():
                passes = plan.add.times.item()
                numbers[again].index_add_(0, plan.rows, plan.numbers, alpha=passes)
                if not again:
                    all_passes[plan.rows] += passes
                    samples[plan.rows] += passes * plan.samples
        there = torch.where(numbers > 0, numbers, torch.nan)
        of_samples = torch.where(numbers[0] > 0, samples.double()[:, None], torch.nan)
        columns = torch.cat([sums[:, :, 0] / there, sums[0, :, 1:].transpose(0, 1) / of_samples])
        columns = columns.permute(1, 2, 0)
        return Seen(columns, samples.tolist(), all_passes.tolist(), bool(sums[1, :, 1, -1].isfinite().all()))

    def _add(self, again: int, steps: int, B: int, group: list[tuple[Sequence[Counts], list[int]]]) -> None:
        key = (steps, B, tuple((len(parts), sum(part.numbers for part in parts), *rows) for parts, rows in group))
        plan = self._plans[again].get(key)
        if plan is None:
            plan = self._plans[again][key] = self._plan(steps, B, group)
        plan.add([part for parts, _ in group for part in parts], self.sums[again])

    def _plan(self, steps: int, B: int, group: list[tuple[Sequence[Counts], list[int]]]) -> _Plan:
        rows, numbers = [], []
        for parts, those in group:
            number = B * sum(part.numbers for part in parts)
            each = number if steps == self.T else 0  # of what knows no time, there is nothing at any step
            numbers += [[*[each] * self.T, steps * number]] * len(those)
            rows += those
        with tape.aside(), torch.inference_mode(False):  # whose tensors could not be added to in a pass
            addition = Addition([(len(parts), those) for parts, those in group], self.sums.device)
            return _Plan(
                addition, torch.tensor(rows, device="cpu"), torch.tensor(numbers, dtype=torch.float64, device="cpu"), B
            )
