"""FGSM and PGD in the Linf ball, as functions and in torchattacks' shape of call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .. import functional
from .ascend import ascend, budgets_of, uniform
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
    budgets = budgets_of(eps, x)
    with input_gradient(network, bn=bn, precision=precision, engine=engine) as gradient:
        origin = x.detach().clone()
        g = gradient(origin, y.to(torch.int64, copy=True))  # a copy: inference tensors cannot be differentiated
        # a step of twice the budget, so that the projection lands on x +- eps itself
        results = [functional.attack_step(origin, origin, g, budget, 2 * budget) for budget in budgets]
    return results if isinstance(eps, (list, tuple)) else results[0]


def pgd(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float | torch.Tensor | Sequence[float | torch.Tensor],
    alpha: float | torch.Tensor,
    steps: int,
    random_start: bool = True,
    restarts: int = 1,
    bn: str = "frozen",
    precision: str = "fp32",
    engine: str | None = "auto",
    graph: str | None = "auto",
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Projected gradient descent in the Linf ball (Madry et al. 2017, eq. 2).

    Several budgets and restarts give what as many calls with one each would give, from the same draws: on a CPU bit for
    bit, on a GPU up to the order of sums. There is one draw of x's shape per restart, and all budgets share it. With
    bn="drift" the statistics move on from restart to restart, and in a restart from budget to budget.

    Args:
        network: from x to logits [B, classes].
        x: encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1].
        y: labels [B].
        eps: budget, at least 0: a number, or one per sample [B]; the paper's is 6/255; or a list of such.
        alpha: step: a number, or one per sample [B]; the paper's is 0.01.
        steps: iterations; the paper's are 7.
        random_start: begin at a uniform draw from the ball rather than at x.
        restarts: random starts, at least 1; of several, the worst is kept for each sample: the first whose last iterate
            is misclassified, else the one of highest cross-entropy. 1 as in the paper.
        bn: "frozen", "batch" or "drift"; see under_attack.
        precision: "reference", "fp32" or "fast"; see nn.precision.
        engine: "auto" for the fastest form with the same answers, None for the layers themselves.
        graph: "auto" records a whole step as a CUDA graph and replays it, which saves its hundreds of launches: on a
            GPU, for networks of this package's modules that nobody watches, up to 512 samples in a pass, from the
            second attack with such a batch on the same weights, where it has 3 steps or more. Elsewhere, and where
            recording fails (which is logged once for a network), steps run one by one. A recording serves any eps,
            alpha and labels; it lives as long as the network, holding the memory of a step, and is made anew where
            weights have changed. None records nothing. On a CPU it is without effect.
        generator: of the random start; None uses torch's global one; a list holds one for each sample, which makes a
            sample's start independent of its batch.

    Returns:
        The last iterate, like x; |result - x| <= eps holds exactly, and it stays in [0, 1]; a list of them for a list
        of budgets.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
    """
    how = {"bn": bn, "precision": precision, "engine": engine, "graph": graph}
    draw = uniform(generator) if random_start else None
    return ascend(network, x, y, eps=eps, alpha=alpha, steps=steps, draw=draw, restarts=restarts, **how)


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
        restarts: int = 1,
        **how,
    ):
        self.network = network
        self.settings = {"eps": eps, "alpha": alpha, "steps": steps, "random_start": random_start}
        self.settings |= {"restarts": restarts, **how}

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return adversarial input like x."""
        return pgd(self.network, x, y, **self.settings)
