"""Sums over gradients, so that a stream of batches needs no memory: zeros, and the norms of every sample.

A gradient is [T, B, ...] or folded [T*B, ...]; one that knows no time is [B, ...]. Sums are kept for every time step,
and over all of them; numbers of float32 are added in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.linalg import vector_norm


class Tally:
    """What was seen of one side (input or output) of one layer, in all passes.

    Attributes:
        zeros, numbers: exact zeros (-0 is one), and how many numbers there were [T + 1]; the last is over all steps.
        structural, retried: the same of the passes in which nothing underflows.
        norms: L1, L2 and Linf of every sample, added up over samples [3, T + 1].
        samples: how many samples these were.
    """

    def __init__(self, T: int):
        self.T, self.samples = T, 0
        self.zeros = self.numbers = self.structural = self.retried = self.norms = 0

    def take(self, gradients: Sequence[torch.Tensor], B: int) -> None:
        """Add a pass's gradients at this side: one, or one for each input of the layer."""
        parts = [self._by_step(gradient, B) for gradient in gradients]
        zeros, numbers = self._zeros(parts)
        l1 = sum(vector_norm(part, 1, -1, dtype=torch.float64) for part in parts)
        squares = sum(vector_norm(part, 2, -1, dtype=torch.float64).square() for part in parts)
        linf = torch.stack([vector_norm(part, torch.inf, -1, dtype=torch.float64) for part in parts]).amax(0)
        l1, squares = (torch.cat([steps, steps.sum(0, keepdim=True)]) for steps in (l1, squares))
        linf = torch.cat([linf, linf.amax(0, keepdim=True)])
        norms = torch.stack([l1.sum(1), squares.sqrt().sum(1), linf.sum(1)])
        self.zeros, self.numbers = self.zeros + zeros, self.numbers + numbers
        self.norms, self.samples = self.norms + self._spread(norms), self.samples + B

    def take_again(self, gradients: Sequence[torch.Tensor], B: int) -> torch.Tensor:
        """Add the zeros of a pass in which nothing underflows; return whether all numbers were finite."""
        zeros, numbers = self._zeros([self._by_step(gradient, B) for gradient in gradients])
        self.structural, self.retried = self.structural + zeros, self.retried + numbers
        return torch.stack([gradient.isfinite().all() for gradient in gradients]).all()

    def _by_step(self, gradient: torch.Tensor, B: int) -> torch.Tensor:
        """[T, B, ...], [T*B, ...] or [B, ...] -> [T or 1, B, numbers]."""
        # with as many samples as steps, [B, classes] and [B, C, H, W] could be taken for steps
        has_steps = gradient.shape[:2] == (self.T, B) and (self.T != B or gradient.dim() in (3, 5))
        if has_steps or gradient.shape[0] == self.T * B:
            return gradient.detach().reshape(self.T, B, -1)
        if gradient.shape[0] == B:
            return gradient.detach().reshape(1, B, -1)
        shape, first = list(gradient.shape), f"[{self.T}, {B}, ...], [{self.T * B}, ...] or [{B}, ...]"
        raise ValueError(f"network has a layer whose gradient has shape {shape}, expected {first}.")

    def _zeros(self, parts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        zeros = sum((part == 0).sum((1, 2)) for part in parts)
        numbers = torch.full_like(zeros, sum(part[0].numel() for part in parts))
        return tuple(self._spread(torch.cat([steps, steps.sum(0, keepdim=True)])) for steps in (zeros, numbers))

    def _spread(self, sums: torch.Tensor) -> torch.Tensor:
        """Give sums [..., 2] of what knows no time the shape [..., T + 1] of all others, with nothing at every step."""
        missing = self.T + 1 - sums.shape[-1]
        return (
            torch.cat([torch.zeros_like(sums[..., :1]).expand(*sums.shape[:-1], missing), sums], -1)
            if missing
            else sums
        )
