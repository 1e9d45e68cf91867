"""FGSM and PGD in the Linf ball, as functions and in torchattacks' shape of call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch

from .. import functional
from ..ops.attack_step import default_batch_axis, per_sample
from .ascend import ascend, uniform_start
from .fold import copies, repeat
from .gradient import check_input, input_gradient


def fgsm(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float | torch.Tensor | Sequence[float | torch.Tensor],
    bn: str = "frozen",
    precision: str = "fp32",
    engine: str | None = "auto",
) -> torch.Tensor | list[torch.Tensor]:
    """Fast gradient sign method (Goodfellow et al. 2015, eq. 2): clip(x + eps * sign(gradient), 0, 1).

    Args:
        network: from x to logits [B, classes].
        x: encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1].
        y: labels [B].
        eps: budget, at least 0: a number or one per sample [B]; or a list of such, all served by one gradient.
        bn: "frozen", "batch" or "drift"; see under_attack.
        precision: "reference", "fp32" or "fast"; see nn.precision.
        engine: "auto" for the fastest form with the same answers, None for the layers themselves.

    Returns:
        Adversarial input like x, with |result - x| <= eps exactly; a list of them for a list of budgets.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
    """
    check_input(x, y)
    many = isinstance(eps, (list, tuple))
    budgets = [per_sample("eps", e, x, default_batch_axis(x)) for e in (eps if many else [eps])]
    with input_gradient(network, y, bn=bn, precision=precision, engine=engine) as gradient:
        origin = x.detach().clone()
        g = gradient(origin)
        # a step of twice the budget, so that the projection lands on x +- eps itself
        results = [functional.attack_step(origin, origin, g, budget, 2 * budget) for budget in budgets]
    return results if many else results[0]


def pgd(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float | torch.Tensor | Sequence[float | torch.Tensor],
    alpha: float | torch.Tensor,
    steps: int,
    random_start: bool = True,
    bn: str = "frozen",
    precision: str = "fp32",
    engine: str | None = "auto",
    generator: torch.Generator | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Projected gradient descent in the Linf ball (Madry et al. 2017, eq. 2).

    Args:
        network: from x to logits [B, classes].
        x: encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1].
        y: labels [B].
        eps: budget, at least 0: a number, or one per sample [B]; the paper's is 6/255. Or a list of such: all start
            from the same draw, and share passes through the network where that is faster.
        alpha: step: a number, or one per sample [B]; the paper's is 0.01.
        steps: iterations; the paper's are 7.
        random_start: begin at a uniform draw from the ball rather than at x.
        bn: "frozen", "batch" or "drift"; see under_attack.
        precision: "reference", "fp32" or "fast"; see nn.precision.
        engine: "auto" for the fastest form with the same answers, None for the layers themselves.
        generator: of the random start; None uses torch's global one.

    Returns:
        The last iterate, like x; |result - x| <= eps holds exactly, and it stays in [0, 1]. A list of them for a list
        of budgets; on a CPU each has the bits that its budget alone would give from the same draw.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
    """
    start = uniform_start(generator) if random_start else None
    how = {"steps": steps, "bn": bn, "precision": precision, "engine": engine}
    if not isinstance(eps, (list, tuple)):
        return ascend(network, x, y, eps=eps, alpha=alpha, start=start, **how)
    check_input(x, y)
    axis = default_batch_axis(x)
    budgets, alpha = [per_sample("eps", e, x, axis) for e in eps], per_sample("alpha", alpha, x, axis)
    n, results = copies(len(y), len(budgets), bn, x.device), []
    for first in range(0, len(budgets), n):
        some = budgets[first : first + n]
        begin = start and functools.partial(start, copies=len(some))
        folded = (repeat(x, len(some), axis), repeat(y, len(some)))
        how |= {"eps": torch.cat(some), "alpha": repeat(alpha, len(some)), "start": begin}
        adv = ascend(network, *folded, **how)
        results += adv.chunk(len(some), axis)
    return results


class FGSM:
    """fgsm with its settings held: `FGSM(clf, eps=8/255)(images, y)`, as torchattacks is called; see fgsm."""

    def __init__(self, network: Callable, eps: float | torch.Tensor = 8 / 255, **how):
        self.network, self.settings = network, {"eps": eps, **how}

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return adversarial input like x."""
        return fgsm(self.network, x, y, **self.settings)


class PGD:
    """pgd with its settings held: `PGD(clf, eps=8/255, alpha=2/255, steps=10)(images, y)`; see pgd.

    The defaults are torchattacks'.
    """

    def __init__(
        self,
        network: Callable,
        eps: float | torch.Tensor | Sequence[float | torch.Tensor] = 8 / 255,
        alpha: float | torch.Tensor = 2 / 255,
        steps: int = 10,
        random_start: bool = True,
        **how,
    ):
        self.network = network
        self.settings = {"eps": eps, "alpha": alpha, "steps": steps, "random_start": random_start, **how}

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return adversarial input like x, or a list for a list of budgets."""
        return pgd(self.network, x, y, **self.settings)
