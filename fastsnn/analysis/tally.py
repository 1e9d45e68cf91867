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

from ..ops import tape
from ..ops.tally import Addition, Counts, count


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
        self.waiting[again].append([self.counted(gradient, B) for gradient in gradients])

    def counted(self, gradient: torch.Tensor, B: int) -> Counts:
        """Count [T, B, ...], [T*B, ...] or [B, ...]."""
        # with as many samples as steps, [B, classes] and [B, C, H, W] could be taken for steps
        has_steps = gradient.shape[:2] == (self.T, B) and (self.T != B or gradient.dim() in (3, 5))
        if has_steps or gradient.shape[0] == self.T * B:
            return count(gradient, self.T, B, exact=self.exact)
        if gradient.shape[0] == B:
            return count(gradient, 1, B, exact=self.exact)
        shape, first = list(gradient.shape), f"[{self.T}, {B}, ...], [{self.T * B}, ...] or [{B}, ...]"
        raise ValueError(f"network has a layer whose gradient has shape {shape}, expected {first}.")


class Uncounted:
    """Gradients that are counted a little later, as the next layer of the pass may count them anyway.

    A gradient at a layer's input is that at the output of the layer in front, which its neurons' kernel counts. Those
    that nobody counted are, before they leave the cache: when MOST others have come, or the pass is over.
    """

    MOST = 2  # two branches of a block come before the layer in front of one

    def __init__(self):
        self._waiting: dict[tuple, tuple[torch.Tensor, int, list[tuple[Tally, bool]]]] = {}

    def offer(self, gradient: torch.Tensor, B: int, tally: Tally, again: bool) -> None:
        """Have a gradient counted for a tally; it is kept until then."""
        _, _, tallies = self._waiting.setdefault(_identity(gradient), (gradient, B, []))
        tallies.append((tally, again))
        self.settle(self.MOST)

    def counted(self, gradient: torch.Tensor, counts: Counts) -> None:
        """Tell what the counts of a gradient are."""
        _, _, tallies = self._waiting.pop(_identity(gradient), (None, 0, ()))
        for tally, again in tallies:
            tally.waiting[again].append([counts])

    def settle(self, kept: int = 0) -> None:
        """Count all but the `kept` that came last."""
        while len(self._waiting) > kept:
            gradient, B, tallies = self._waiting.pop(next(iter(self._waiting)))
            counts = tallies[0][0].counted(gradient, B)
            for tally, again in tallies:
                tally.waiting[again].append([counts])

    def forget(self) -> None:
        """Let go of what a pass left that failed."""
        self._waiting.clear()


def _identity(gradient: torch.Tensor) -> tuple:
    """Return what is the same for two tensors that lie in the same place, of which one is alive."""
    return gradient.data_ptr(), gradient.shape, gradient.stride(), gradient.dtype


class Seen(NamedTuple):
    """What all passes saw of one side of one layer.

    Attributes:
        zeros: exact zeros (-0 is one): a list of T + 1, the last over all steps.
        numbers: how many numbers there were, likewise.
        structural: the zeros of the passes in which nothing underflows.
        retried: the numbers of those.
        norms: L1, L2 and Linf of every sample, added up over samples: three such lists.
        samples: how many samples these were.
        passes: and in how many passes as they are.
        finite: whether all numbers of those other passes were.
    """

    zeros: list[float]
    numbers: list[float]
    structural: list[float]
    retried: list[float]
    norms: list[list[float]]
    samples: int
    passes: int
    finite: bool


class _Plan(NamedTuple):
    """What passes that are alike have in common.

    Attributes:
        add: adds their sums up.
        rows: of the tallies, and for each how many numbers a pass has: at each step, and over all.
        samples: of a pass.
    """

    add: Addition
    rows: list[tuple[int, list[float]]]
    samples: int


class Book:
    """The tallies of layers that were met together, and the sums over all passes that were settled.

    Attributes:
        sums: float64 [2, tallies, 4, T + 1]: of passes as they are, and of those in which nothing underflows; zeros,
            and L1, L2 and Linf of every sample, added up; at each step and over all.
    """

    def __init__(self, tallies: Sequence[Tally], T: int, device: torch.device):
        self.tallies, self.T = tallies, T
        with tape.aside(), torch.inference_mode(False):  # as in a plan
            self.sums = torch.zeros(2, len(tallies), 4, T + 1, dtype=torch.float64, device=device)
        self._plans: tuple[dict[Hashable, _Plan], dict[Hashable, _Plan]] = ({}, {})

    def settle(self) -> None:
        """Add what waits, all sides together whose passes had the same samples.

        Two sides that see the same gradient, such as a convolution's output and its norm's input, are added up once.
        """
        for again in (0, 1):
            rows = list(enumerate(tally.waiting[again] for tally in self.tallies))
            while rows := [(row, waiting) for row, waiting in rows if waiting]:
                groups: dict[tuple[int, int], dict[tuple, tuple[Sequence[Counts], list[int]]]] = {}
                for row, waiting in rows:
                    parts = waiting.pop()
                    _, steps, B, _ = parts[0].table.shape
                    group = groups.setdefault((steps, B), {})
                    group.setdefault(tuple(map(id, parts)), (parts, []))[1].append(row)
                for (steps, B), group in groups.items():
                    self._add(again, steps, B, list(group.values()))

    def read(self) -> list[Seen]:
        """Return what was seen, for each tally."""
        numbers = [[[0.0] * (self.T + 1) for _ in self.tallies] for _ in self._plans]
        samples, all_passes = [0] * len(self.tallies), [0] * len(self.tallies)
        for again, plans in enumerate(self._plans):
            for plan in plans.values():
                passes = plan.add.times.item()
                for row, those in plan.rows:
                    numbers[again][row] = [a + passes * b for a, b in zip(numbers[again][row], those, strict=True)]
                    if not again:
                        samples[row] += passes * plan.samples
                        all_passes[row] += passes
        (sums, retried), found = self.sums.tolist(), []
        for i in range(len(self.tallies)):
            zeros, *norms = sums[i]
            structural, l1, *_ = retried[i]
            counted = zeros, numbers[0][i], structural, numbers[1][i]
            found.append(Seen(*counted, norms, samples[i], all_passes[i], math.isfinite(l1[-1])))
        return found

    def _add(self, again: int, steps: int, B: int, group: list[tuple[Sequence[Counts], list[int]]]) -> None:
        key = (steps, B, tuple((len(parts), sum(part.numbers for part in parts), *rows) for parts, rows in group))
        plan = self._plans[again].get(key)
        if plan is None:
            plan = self._plans[again][key] = self._plan(steps, B, group)
        plan.add([part for parts, _ in group for part in parts], self.sums[again])

    def _plan(self, steps: int, B: int, group: list[tuple[Sequence[Counts], list[int]]]) -> _Plan:
        device, rows = self.sums.device, []
        for parts, those in group:
            at_a_step = float(B * sum(part.numbers for part in parts))
            each = at_a_step if steps == self.T else 0.0  # of what knows no time, there is nothing at any step
            rows.extend((row, [*[each] * self.T, steps * at_a_step]) for row in those)
        with tape.aside(), torch.inference_mode(False):  # whose tensors could not be added to in a pass
            return _Plan(Addition([(len(parts), those) for parts, those in group], device), rows, B)
