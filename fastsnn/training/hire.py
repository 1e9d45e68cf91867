"""HIRE-SNN (Kundu et al. 2021): training on noise that is crafted anew in every period of the time steps.

T steps are divided in periods; each has its own pass, its own step of the optimizer, and hands its gradient on:

    loss_k    = cross-entropy of the mean logits over period k, at clip(x + delta_k, 0, 1)
    delta_k+1 = clip(delta_k + alpha * sign(dloss_k / ddelta_k), -eps, eps),    delta_1 = 0

delta [B, C, H, W] is the same at all steps of a period. So the noise costs no pass of its own: the gradient of the
weights and that of the input come from one backward pass.

With learned=1 the network's neurons have a threshold and a leak per layer that are learned, as its networks do
(nn.learned); they begin as IF neurons and keep their reset, where theirs begin as converted ones and reset softly.

The training code was not published. As everywhere in this package a pass starts at rest, so no voltage goes from one
period to the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..nn import learned_neurons
from ..ops import check
from .learner import Learner


@dataclass(frozen=True)
class HIRE:
    """Crafted noise, period by period.

    Attributes:
        periods: that T is divided in, at least 2, at most T; with fewer there would be no noise.
        eps: bound of the noise in 1/255, at least 0; 8 as in its evaluation (0.031).
        alpha: step of the noise on the encoded input, absolute, above 0; 0.01 as in its evaluation.
        learned: 1 to learn thresholds and leaks too, for which `defences.neurons_for` gives a network other neurons; 0,
            so that networks trained before are found again.

    Raises:
        ValueError, TypeError: one is out of range; the message names it.
    """

    periods: int = 2
    eps: float = 8.0
    alpha: float = 0.01
    learned: int = 0

    def __post_init__(self):
        check.integer("periods", self.periods, at_least=2)
        check.number("eps", self.eps, at_least=0)
        check.number("alpha", self.alpha, above=0)
        check.integer("learned", self.learned, at_least=0, at_most=1)

    def __call__(self, learner: Learner, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Learn from a batch; see learner.Defence."""
        if self.periods > len(x):
            raise ValueError(f"periods is {self.periods}, expected at most T, which is {len(x)}.")
        if self.learned and not learned_neurons(learner.net):
            raise ValueError("learned is 1, but net has no neurons that learn; give them to it by nn.learn_neurons.")
        noise, losses = torch.zeros_like(x[0]), []
        for period in x.tensor_split(self.periods):
            noise.requires_grad_()
            loss = learner.loss((period + noise).clamp(0, 1), y)
            learner.descend(loss)
            noise = self.next_noise(noise.detach(), noise.grad)
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    def next_noise(self, noise: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return the noise of the next period, like noise."""
        eps = self.eps / 255
        return (noise + self.alpha * gradient.sign()).clamp(-eps, eps)
