"""Sparse-gradient regularisation (Liu et al. 2024, "Enhancing adversarial robustness in SNNs with sparse gradients").

    f(x)  = exp(z_y) / (exp(z_y) + exp(z_o))                     o: the strongest other class at x
    v     = sign(df/dx)
    loss  = cross-entropy + weight * mean(((f(x + h v) - f(x)) / h)^2)

(f(x + h v) - f(x)) / h is, to first order in h, the sum of |df/dx|: the penalty keeps the L1 norm of the input gradient
small, by differences instead of second derivatives. By its theorem 1 the gap between adversarial and random
perturbations is bounded by the number of nonzeros of that gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..ops import check
from .learner import Learner


@dataclass(frozen=True)
class SparseGradient:
    """Cross-entropy, and a penalty on the size of the input gradient.

    Attributes:
        weight: of the penalty, at least 0. Its public code leaves it to the user. Of 0.002, 0.01 and 0.1 the first
            alone lets a network learn the digits in 6 epochs, see docs/training.md.
        h: step of the difference quotient on the encoded input, above 0; 0.01 as published.

    Raises:
        ValueError, TypeError: one is out of range; the message names it.
    """

    weight: float = 0.002
    h: float = 0.01

    def __post_init__(self):
        check.number("weight", self.weight, at_least=0)
        check.number("h", self.h, above=0)

    def __call__(self, learner: Learner, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Learn from a batch; see learner.Defence. The loss it returns includes the penalty."""
        x = x.detach().requires_grad_()
        logits = learner.logits(x)
        loss = F.cross_entropy(logits, y) + self.weight * self.penalty(learner, x, y, logits)
        learner.descend(loss)
        return loss.detach()

    def penalty(self, learner: Learner, x: torch.Tensor, y: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return mean(((f(x + h v) - f(x)) / h)^2), a number, for the logits at x."""
        other = logits.detach().scatter(1, y[:, None], -torch.inf).argmax(1)
        f = _margin(logits, y, other)
        (gradient,) = torch.autograd.grad(f.sum(), x, retain_graph=True)
        moved = learner.logits(x.detach() + self.h * gradient.sign())
        return ((_margin(moved, y, other) - f) / self.h).square().mean()


def _margin(logits: torch.Tensor, y: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the probability [B] of y among y and other."""
    of_each = torch.arange(len(y), device=y.device)
    return torch.sigmoid(logits[of_each, y] - logits[of_each, other])
