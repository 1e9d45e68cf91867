"""SNN-RAT (Ding et al. 2022, "SNN-RAT: robustness-enhanced spiking neural network"), as its public code trains.

    x' = clip(x + eps * sign(dL/dx), 0, 1)       adversarial training, crafted on frozen statistics (FGSM)
    one step of the optimizer at x'
    W <- (1 + beta) W - beta W W^T W              all rows of a convolution, each flattened
    c <- argmin |c - c'| on the simplex           weights of convex combinations (WRN-16-4)

The third line is a step down |W W^T - I|^2: it takes every singular value s to (1 + beta) s - beta s^3, so towards 1,
and with it how far a layer stretches a perturbation. Of a linear layer of 200 rows or more it takes a random 30 %.

The mixed form draws for each batch whether to craft with FGSM or with R-FGSM (Tramer et al. 2018): half of the budget
for a random step sign(N(0, 1)), half for the gradient's.

There the image is perturbed, which is then repeated; here it is the encoded input, which is what the paper attacks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .. import attacks
from ..models.wide_resnet import Mix
from ..ops import check
from .learner import Learner

_MANY_ROWS, _SHARE = 200, 0.3  # of linear layers, as in the public code


@dataclass(frozen=True)
class SNNRAT:
    """Adversarial training, the weight regulariser, and the simplex.

    Attributes:
        eps: budget of the training attack in 1/255, at least 0; 2 as published.
        beta: pace of the regulariser, at least 0; 0.004 as published. Weight decay pulls against it, so the public code
            then trains without: weight_decay=0.
        mixed: FGSM or R-FGSM, by a fair coin for each batch.

    Raises:
        ValueError, TypeError: one is out of range; the message names it.
    """

    eps: float = 2.0
    beta: float = 0.004
    mixed: bool = False

    def __post_init__(self):
        check.number("eps", self.eps, at_least=0)
        check.number("beta", self.beta, at_least=0)

    def __call__(self, learner: Learner, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Learn from a batch; see learner.Defence."""
        loss = learner.loss(self.crafted(learner, x, y), y)
        learner.descend(loss)
        regularise(learner.net, self.beta, learner.generator)
        onto_simplex(learner.net)
        return loss.detach()

    def crafted(self, learner: Learner, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the adversarial input that a batch is replaced by."""
        eps = self.eps / 255
        if self.mixed and torch.rand((), generator=learner.generator) < 0.5:
            noise = torch.randn(x.shape, generator=learner.generator).sign().to(x.device)
            x, eps = (x + eps / 2 * noise).clamp(0, 1), eps / 2
        return attacks.fgsm(learner.net, x, y, eps=eps)


@torch.no_grad()
def regularise(net: nn.Module, beta: float, generator: torch.Generator) -> None:
    """Replace the weights W of convolutions and linear layers by (1 + beta) W - beta W W^T W, rows flattened.

    Args:
        net: whose weights, in place.
        beta: the step, at least 0.
        generator: of the rows that are drawn from large linear layers.
    """
    for module in net.modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        count = len(module.weight)
        chosen = torch.arange(count)
        if isinstance(module, nn.Linear) and count >= _MANY_ROWS:
            chosen = torch.randperm(count, generator=generator)[: int(count * _SHARE)]
        chosen = chosen.to(module.weight.device)
        rows = module.weight[chosen].flatten(1)
        rows = (1 + beta) * rows - beta * rows @ rows.T @ rows
        module.weight[chosen] = rows.view(-1, *module.weight.shape[1:])


@torch.no_grad()
def onto_simplex(net: nn.Module) -> None:
    """Move the weights of every convex combination to the nearest that are at least 0 and add up to 1.

    Sorted downwards, c - max over j of (c_1 + ... + c_j - 1) / j, and what is negative becomes 0 (Held et al. 1974).
    """
    for module in net.modules():
        if isinstance(module, Mix):
            down = module.comb.sort(descending=True).values
            sums = (down.cumsum(0) - 1) / torch.arange(1, len(down) + 1, device=down.device)
            module.comb.sub_(sums.max()).clamp_(min=0)
