"""Budgets and restarts of one batch: runs that may share passes as copies of the batch, and the worst of several.

Whether runs share a pass changes no bit of a result on a CPU: they do so only where samples are independent.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from ..engine.batch_size import first_try, halved_until_it_fits
from ..ops.attack_step import default_batch_axis
from .gradient import InputGradient


class Run(NamedTuple):
    """One climb of the whole batch: which budget it is for, that budget [B], and the first iterate."""

    budget: int
    eps: torch.Tensor
    first: torch.Tensor


class Worst:
    """The worst iterate so far for each sample: the first that succeeded, else that of highest loss."""

    def __init__(self, axis: int):
        self.axis, self.adv, self.fooled, self.loss = axis, None, None, None

    def take(self, adv: torch.Tensor, outcome: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        """Compare with an iterate like x, by success and loss of each sample; None: there is one."""
        if self.adv is None or outcome is None:
            self.adv, (self.fooled, self.loss) = adv, outcome or (None, None)
            return
        fooled, loss = outcome
        better = ~self.fooled & (fooled | (loss > self.loss))
        shape = [-1 if i == self.axis else 1 for i in range(adv.dim())]
        self.adv = torch.where(better.view(shape), adv, self.adv)
        self.fooled, self.loss = self.fooled | fooled, torch.where(better, loss, self.loss)


def in_passes(
    gradient: InputGradient,
    runs: Iterator[Run],
    total: int,
    origin: torch.Tensor,
    each: tuple[torch.Tensor, ...],
    climb: Callable[..., torch.Tensor],
) -> Iterator[tuple[Run, torch.Tensor]]:
    """Yield every run with its last iterate, in order.

    Args:
        gradient: at an iterate.
        runs: so many as `total` says.
        total: how many runs there are.
        origin: centre of the ball [T, B, C, H, W] or [B, C, H, W].
        each: what else holds one value for each sample [B]: labels, steps.
        climb: from gradient, first iterate, origin, budgets [B] and those to the last iterate.
    """
    axis, waiting = default_batch_axis(origin), []
    size = _copies(gradient.independent, origin, total)

    def go(copies: int) -> list[torch.Tensor]:
        """Climb the first of those that wait, together."""
        if copies == 1:
            return [climb(gradient, waiting[0].first, origin, waiting[0].eps, *each)]
        first, eps = torch.cat([run.first for run in waiting[:copies]], axis), [run.eps for run in waiting[:copies]]
        centre, several = torch.cat([origin] * copies, axis), (one.repeat(copies) for one in each)
        last = climb(gradient, first, centre, torch.cat(eps), *several)
        return [part.contiguous() for part in last.chunk(copies, axis)]

    while waiting := waiting + list(itertools.islice(runs, max(0, size - len(waiting)))):
        lasts, size = halved_until_it_fits(go, min(size, len(waiting)))
        yield from zip(waiting, lasts, strict=False)
        waiting = waiting[len(lasts) :]


def _copies(independent: bool, origin: torch.Tensor, total: int) -> int:
    """Return how many copies of the batch go through the network together; on a GPU, how many to try first."""
    samples = origin.shape[default_batch_axis(origin)]
    if not independent or not samples:
        return 1
    return max(1, first_try(origin.device, total * samples) // samples)
