"""Sums over gradients, so that a stream of batches needs no memory: zeros, and the norms of every sample.

A gradient is [T, B, ...] or folded [T*B, ...]; one that knows no time is [B, ...]. Sums are kept for every time step,
and over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..ops.tally import Counts, count

_TOGETHER = 32  # passes that wait to be added: a few operations of torch for all of them, 5 KiB for each


class Tally:
    """What was seen of one side (input or output) of one layer, in all passes.

    Attributes:
        zeros, numbers: exact zeros (-0 is one), and how many numbers there were [T + 1]; the last is over all steps.
        structural, retried: the same of the passes in which nothing underflows.
        norms: L1, L2 and Linf of every sample, added up over samples [3, T + 1].
        samples: how many samples these were.
        finite: whether all numbers of those passes were; None before the first.
        exact: whether `take` adds in float64 from the first number on; see ops.tally.
    """

    def __init__(self, T: int, exact: bool):
        self.T, self.exact, self.samples = T, exact, 0
        self.zeros = self.numbers = self.structural = self.retried = self.norms = 0
        self.finite: torch.Tensor | None = None
        self._waiting: list[Sequence[Counts]] = []
        self._waiting_again: list[Sequence[Counts]] = []

    def take(self, gradients: Sequence[torch.Tensor], B: int, again: bool) -> None:
        """Add a pass's gradients at this side: one, or one for each input of the layer.

        `again`: of a pass in which nothing underflows, whose zeros are structural.
        """
        self.take_counts([self._counted(gradient, B) for gradient in gradients], again)

    def take_counts(self, parts: Sequence[Counts], again: bool) -> None:
        """The same of gradients that were counted elsewhere."""
        waiting = self._waiting_again if again else self._waiting
        waiting.append(parts)
        if len(waiting) == _TOGETHER:
            self.settle()

    def settle(self) -> None:
        """Bring the attributes up to date."""
        if self._waiting:
            parts = _side_by_side(self._waiting)
            zeros, numbers = self._zeros(parts)
            l1, squares = (_with_all(sum(part.sums[..., i] for part in parts)) for i in (1, 2))
            linf = torch.stack([part.sums[..., 3] for part in parts]).amax(0)
            linf = torch.cat([linf, linf.amax(0, keepdim=True)])
            norms = torch.stack([l1.sum(1), squares.sqrt().sum(1), linf.sum(1)])
            self.zeros, self.numbers = self.zeros + zeros, self.numbers + numbers
            self.norms, self.samples = self.norms + self._spread(norms), self.samples + linf.shape[1]
        if self._waiting_again:
            parts = _side_by_side(self._waiting_again)
            zeros, numbers = self._zeros(parts)
            self.structural, self.retried = self.structural + zeros, self.retried + numbers
            finite = torch.stack([part.sums[..., 1].isfinite().all() for part in parts]).all()
            self.finite = finite if self.finite is None else self.finite & finite
        self._waiting, self._waiting_again = [], []

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

    def _zeros(self, parts: Sequence[Counts]) -> tuple[torch.Tensor, torch.Tensor]:
        zeros = _with_all(sum(part.sums[..., 0].sum(1, keepdim=True) for part in parts))[:, 0].long()
        numbers = torch.full_like(zeros, sum(part.numbers * part.sums.shape[1] for part in parts))
        numbers[-1] *= len(numbers) - 1
        return self._spread(zeros), self._spread(numbers)

    def _spread(self, sums: torch.Tensor) -> torch.Tensor:
        """Give sums [..., 2] of what knows no time the shape [..., T + 1] of all others, with nothing at every step."""
        missing = self.T + 1 - sums.shape[-1]
        return (
            torch.cat([torch.zeros_like(sums[..., :1]).expand(*sums.shape[:-1], missing), sums], -1)
            if missing
            else sums
        )


def _side_by_side(passes: Sequence[Sequence[Counts]]) -> list[Counts]:
    """Return the counts of several passes as those of one with all of their samples."""
    inputs = zip(*passes, strict=True)
    return [Counts(torch.cat([part.sums for part in parts], 1), parts[0].numbers) for parts in inputs]


def _with_all(steps: torch.Tensor) -> torch.Tensor:
    """Return sums [T, ...] of every step with that over all of them behind [T + 1, ...]."""
    return torch.cat([steps, steps.sum(0, keepdim=True)])
