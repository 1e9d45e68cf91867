"""Sums over gradients, so that a stream of batches needs no memory: zeros, and the norms of every sample.

A gradient is [T, B, ...] or folded [T*B, ...]; one that knows no time is [B, ...]. Sums are kept for every time step,
and over all of them. Counts wait until `settle` adds up those of many layers and passes at once: each of torch's
operations on so few numbers costs more than counting them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from ..ops.tally import Counts, count


class Tally:
    """What was seen of one side (input or output) of one layer, in all passes; `settle` brings it up to date.

    Attributes:
        zeros, numbers: exact zeros (-0 is one), and how many numbers there were: lists of T + 1, the last over all.
        structural, retried: the same of the passes in which nothing underflows.
        norms: L1, L2 and Linf of every sample, added up over samples: three such lists.
        samples: how many samples these were.
        finite: whether all numbers of those other passes were.
        exact: whether `take` adds in float64 from the first number on; see ops.tally.
        waiting: the counts of passes that were not settled yet, and of those in which nothing underflows.
    """

    def __init__(self, T: int, exact: bool):
        self.T, self.exact, self.samples, self.finite = T, exact, 0, True
        self.zeros, self.numbers, self.structural, self.retried = ([0] * (T + 1) for _ in range(4))
        self.norms = [[0.0] * (T + 1) for _ in range(3)]
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

    def add(self, again: bool, numbers: int, samples: int, sums: Sequence[Sequence[float]]) -> None:
        """Add what passes came to.

        Args:
            again: as for `take`.
            numbers: that there were at a step, of all samples.
            samples: of these passes.
            sums: zeros, L1, L2 and Linf, each at every step and over all of them: lists of T + 1, or of 2 of what knows
                no time, which has nothing at every step.
        """
        steps = len(sums[0]) - 1
        counts = [numbers] * steps + [numbers * steps]
        if steps != self.T:
            nothing = [0] * self.T
            counts, sums = nothing + counts[-1:], [nothing + one[-1:] for one in sums]
        if again:
            self.structural, self.retried = _plus(self.structural, sums[0]), _plus(self.retried, counts)
            self.finite &= math.isfinite(sums[1][-1])
        else:
            self.zeros, self.numbers = _plus(self.zeros, sums[0]), _plus(self.numbers, counts)
            self.norms, self.samples = list(map(_plus, self.norms, sums[1:])), self.samples + samples


def _plus(total: Sequence[float], more: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip(total, more, strict=True)]


def settle(tallies: Iterable[Tally]) -> None:
    """Bring tallies up to date: those whose passes had the same samples together, in a few operations of torch.

    Two sides that see the same gradient, such as a convolution's output and its norm's input, are added up once.
    """
    groups: dict[tuple, dict[tuple, list[Tally]]] = {}
    for tally in tallies:
        for again, waiting in enumerate(tally.waiting):
            if waiting:
                batches = tuple(parts[0].sums.shape[1] for parts in waiting)
                steps = tuple(part.sums.shape[0] for part in waiting[0])
                same = tuple(id(part) for parts in waiting for part in parts)
                groups.setdefault((again, steps, batches), {}).setdefault(same, []).append(tally)
    for (again, steps, batches), group in groups.items():
        samples, firsts = sum(batches), [some[0].waiting[again] for some in group.values()]
        parts = [
            torch.cat([parts[i].sums for waiting in firsts for parts in waiting], 1)
            .view(steps[i], len(firsts), samples, 4)
            .transpose(0, 1)
            for i in range(len(steps))
        ]
        for some, sums in zip(group.values(), _added(parts).tolist(), strict=True):
            for tally in some:
                numbers = sum(part.numbers for part in tally.waiting[again][0])
                tally.add(bool(again), numbers * samples, samples, sums)
                tally.waiting[again].clear()


def _added(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the sums over samples, at every step and over all [K, 4, T + 1], of parts [K, T, samples, 4]."""
    added = sum(part[..., :3] for part in parts)
    added = torch.cat([added, added.sum(1, keepdim=True)], 1)
    linf = torch.stack([part[..., 3] for part in parts]).amax(0)
    linf = torch.cat([linf, linf.amax(1, keepdim=True)], 1)
    zeros, l1, squares = added.unbind(-1)
    return torch.stack([each.sum(-1) for each in (zeros, l1, squares.sqrt(), linf)], 1)
