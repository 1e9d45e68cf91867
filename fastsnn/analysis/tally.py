"""Sums over gradients, so that a stream of batches needs no memory: zeros, and the norms of every sample.

A gradient is [T, B, ...] or folded [T*B, ...]; one that knows no time is [B, ...]. Sums are kept for every time step,
and over all of them. Counts wait until their pass is over; `settle` then adds them up for all layers at once, in place
and without a look at a value, so that a replayed pass adds up as well (see ops.tape).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch

from ..ops.tally import Counts, added, count


class Tally:
    """What the passes that were not settled yet saw of one side (input or output) of one layer.

    Attributes:
        T: time steps.
        exact: whether `take` adds in float64 from the first number on; see ops.tally.
        waiting: the counts of passes as they are, and of those in which nothing underflows.
    """

    def __init__(self, T: int, exact: bool):
        self.T, self.exact = T, exact
        self.waiting: tuple[list[Sequence[Counts]], list[Sequence[Counts]]] = ([], [])

    def take(self, gradients: Sequence[torch.Tensor], B: int, again: bool) -> None:
        """Add a pass's gradients at this side: one, or one for each input of the layer.

        `again`: of a pass in which nothing underflows, whose zeros are structural.
        """
        self.waiting[again].append([self._counted(gradient, B) for gradient in gradients])

    def _counted(self, gradient: torch.Tensor, B: int) -> Counts:
        """Count [T, B, ...], [T*B, ...] or [B, ...]."""
        # with as many samples as steps, [B, classes] and [B, C, H, W] could be taken for steps
        has_steps = gradient.shape[:2] == (self.T, B) and (self.T != B or gradient.dim() in (3, 5))
        if has_steps or gradient.shape[0] == self.T * B:
            return count(gradient, self.T, B, exact=self.exact)
        if gradient.shape[0] == B:
            return count(gradient, 1, B, exact=self.exact)
        shape, first = list(gradient.shape), f"[{self.T}, {B}, ...], [{self.T * B}, ...] or [{B}, ...]"
        raise ValueError(f"network has a layer whose gradient has shape {shape}, expected {first}.")


class Seen(NamedTuple):
    """What all passes saw of one side of one layer.

    Attributes:
        zeros: exact zeros (-0 is one): a list of T + 1, the last over all steps.
        numbers: how many numbers there were, likewise.
        structural: the zeros of the passes in which nothing underflows.
        retried: the numbers of those.
        norms: L1, L2 and Linf of every sample, added up over samples: three such lists.
        samples: how many samples these were.
        finite: whether all numbers of those other passes were.
    """

    zeros: list[float]
    numbers: list[float]
    structural: list[float]
    retried: list[float]
    norms: list[list[float]]
    samples: int
    finite: bool


class Book:
    """The tallies of layers that were met together, and the sums over all passes that were settled.

    Attributes:
        sums: float64 [2, tallies, 4, T + 1]: of passes as they are, and of those in which nothing underflows; zeros,
            and L1, L2 and Linf of every sample, added up; at each step and over all.
        numbers: float64 [2, tallies, T + 1]: how many numbers these were of.
        samples: float64 [tallies]: and of how many samples, in passes as they are.
    """

    def __init__(self, tallies: Sequence[Tally], T: int, device: torch.device):
        self.tallies, self.T = tallies, T
        shapes = (2, len(tallies), 4, T + 1), (2, len(tallies), T + 1), (len(tallies),)
        self.sums, self.numbers, self.samples = (torch.zeros(s, dtype=torch.float64, device=device) for s in shapes)
        self._plans: dict[Hashable, tuple[torch.Tensor, ...]] = {}

    def settle(self) -> None:
        """Add what waits: of all sides whose passes had the same samples together, in a few operations of torch.

        Two sides that see the same gradient, such as a convolution's output and its norm's input, are added up once.
        """
        for again in (0, 1):
            while any(tally.waiting[again] for tally in self.tallies):
                groups: dict[tuple[int, ...], dict[tuple, tuple[Sequence[Counts], list[int]]]] = {}
                for row, tally in enumerate(self.tallies):
                    if tally.waiting[again]:
                        parts = tally.waiting[again].pop()
                        same = tuple(map(id, parts))
                        group = groups.setdefault((len(parts), *parts[0].sums.shape[:2]), {})
                        group.setdefault(same, (parts, []))[1].append(row)
                for group in groups.values():
                    self._add(again, list(group.values()))

    def read(self) -> list[Seen]:
        """Return what was seen, for each tally."""
        (sums, retried), (numbers, of_those), samples = self.sums.tolist(), self.numbers.tolist(), self.samples.tolist()
        found = []
        for i in range(len(self.tallies)):
            zeros, *norms = sums[i]
            structural, l1, *_ = retried[i]
            counted = zeros, numbers[i], structural, of_those[i]
            found.append(Seen(*counted, norms, round(samples[i]), math.isfinite(l1[-1])))
        return found

    def _add(self, again: int, group: list[tuple[Sequence[Counts], list[int]]]) -> None:
        firsts = [parts for parts, _ in group]
        steps, B, _ = firsts[0][0].sums.shape
        sums = torch.cat([parts[i].sums for i in range(len(firsts[0])) for parts in firsts])
        each = added(sums.view(len(firsts[0]), len(firsts), steps, B, 4))
        key = (steps, B, tuple((*rows, sum(part.numbers for part in parts)) for parts, rows in group))
        if key not in self._plans:
            self._plans[key] = self._plan(steps, B, group)
        which, numbers, samples = self._plans[key]
        each = each.index_select(0, which)
        if steps == self.T:
            self.sums[again].add_(each)
        else:  # of what knows no time, there is nothing at any step
            self.sums[again, ..., -1:].add_(each[..., -1:])
        self.numbers[again].add_(numbers)
        if not again:
            self.samples.add_(samples)

    def _plan(self, steps: int, B: int, group) -> tuple[torch.Tensor, ...]:
        """Return for every tally where its sums are among those of a group (the last are zeros), numbers, samples."""
        which = torch.full((len(self.tallies),), len(group))
        numbers, samples = torch.zeros_like(self.numbers[0]), torch.zeros_like(self.samples)
        for i, (parts, rows) in enumerate(group):
            which[rows], samples[rows] = i, float(B)
            number = B * sum(part.numbers for part in parts)
            if steps == self.T:
                numbers[rows, :-1] = float(number)
            numbers[rows, -1] = float(number * steps)
        return which.to(self.sums.device), numbers, samples
