"""FGSM, PGD and MIM: steps along the gradient, and back into a ball; functions, and torchattacks' shape of call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..ops import check
from ..ops.attack_step import default_batch_axis
from .ascend import ascend, budgets_of, gradient_steps, within
from .balls import ball_of
from .draws import Generators
from .gradient import check_input
from .input_gradient import input_gradient
from .objectives import AWAY, TOWARDS, Objective


def fgsm(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float | torch.Tensor | Sequence[float | torch.Tensor],
    norm: str = "linf",
    targeted: bool = False,
    bn: str = "frozen",
    precision: str = "fp32",
    engine: str | None = "auto",
    surrogate: str | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Fast gradient sign method (Goodfellow et al. 2015, eq. 2): clip(x + eps * sign(gradient), 0, 1).

    What attacks share is described in fastsnn.attacks. What differs, or is this attack's own:

        eps: budget, at least 0: a number or one per sample [B]; or a list of such, all served by one gradient.
        norm: of the budget: "linf"; with "l2" or "l1" the step is eps * gradient / |gradient|, as foolbox's.

    Returns:
        Adversarial input like x, with |result - x| <= eps exactly; a list of them for a list of budgets.
    """
    check_input(x, y)
    ball, axis, budgets = ball_of(norm), default_batch_axis(x), budgets_of(eps, x)
    how = {"bn": bn, "precision": precision, "engine": engine, "surrogate": surrogate}
    with input_gradient(network, objective=_objective(targeted), **how) as gradient:
        origin = x.clone() if x.is_inference() else x.detach()
        g = gradient(origin, y.to(torch.int64, copy=True))  # a copy: inference tensors cannot be differentiated
        results = [ball.step(origin, origin, g, budget, ball.whole * budget, axis, True) for budget in budgets]
    return results if isinstance(eps, (list, tuple)) else results[0]


def pgd(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float | torch.Tensor | Sequence[float | torch.Tensor],
    alpha: float | torch.Tensor,
    steps: int,
    norm: str = "linf",
    targeted: bool = False,
    random_start: bool = True,
    restarts: int = 1,
    bn: str = "frozen",
    precision: str = "fp32",
    engine: str | None = "auto",
    graph: str | None = "auto",
    surrogate: str | None = None,
    generator: Generators = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Projected gradient descent (Madry et al. 2017, eq. 2).

    Several budgets and restarts give what as many calls with one each would give, from the same draws: on a CPU bit for
    bit, on a GPU up to the order of sums. There is one draw of x's shape per restart, and all budgets share it. With
    bn="drift" the statistics move on from restart to restart, and in a restart from budget to budget.

    What attacks share is described in fastsnn.attacks. What differs, or is this attack's own:

        eps: budget, at least 0: a number, or one per sample [B]; the paper's is 6/255; or a list of such.
        alpha: step: a number, or one per sample [B]; the paper's is 0.01.
        steps: iterations; the paper's are 7. From 50 on those that would repeat earlier ones bit by bit are not made,
            where kernels are deterministic (see cycles.py) and norm is "linf"; the result is that of all of them.
        norm: of the budget: "linf", as in the paper; with "l2" or "l1" a step is alpha * gradient / |gradient|, and
            what leaves the ball is scaled back, as in foolbox.
        random_start: begin at a uniform draw from the ball rather than at x.
        restarts: random starts, at least 1; of several, the worst is kept for each sample: the first whose last iterate
            is misclassified (or hits its target), else the one of highest (or lowest) cross-entropy. 1 as in the paper.
        graph: "auto" records a whole step (in "linf") and replays it: on a GPU as a CUDA graph, which saves its
            hundreds of launches; on a CPU as a list of kernels with their memory, which saves Python and autograd
            between them, a sixth of a step on SEW-ResNet18 with 16 samples. For networks of this package's modules that
            nobody watches (but gradient_sparsity), up to 512 samples in a pass (on a CPU 128, and layers that the
            engine computes), from the second attack with such a batch on the same weights, where it has 3 steps or
            more; on a CPU at once with 12 steps or more. In other norms, and in other attacks, what is recorded on a
            CPU is looks at the network. Elsewhere, and where recording fails (logged once for a network), steps run one
            by one, to the same result bit for bit on a CPU. A recording serves any eps, alpha and labels; it
            lives as long as the network, holding the memory of a step, and is made anew where weights have changed.
            None records nothing.

    Returns:
        The last iterate, like x; |result - x| <= eps holds exactly (in "l2" and "l1" for the norm in float64), and it
        stays in [0, 1]; a list of them for a list of budgets.
    """
    ball = ball_of(norm)
    how = {"bn": bn, "precision": precision, "engine": engine, "graph": graph, "surrogate": surrogate}
    how |= {"first": within(ball), "draw": ball.draw(generator) if random_start else None, "restarts": restarts}
    climb = gradient_steps(ball, steps)
    return ascend(network, x, y, climb, eps=eps, alpha=alpha, steps=steps, objective=_objective(targeted), **how)


def mim(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float | torch.Tensor | Sequence[float | torch.Tensor],
    alpha: float | torch.Tensor,
    steps: int,
    decay: float = 1.0,
    norm: str = "linf",
    targeted: bool = False,
    bn: str = "frozen",
    precision: str = "fp32",
    engine: str | None = "auto",
    surrogate: str | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Momentum iterative method (Dong et al. 2018, eq. 6 and 7; eq. 8 for "l2"), from x itself.

    Steps go along g = decay * g + gradient / mean |gradient|. Where a sample's gradient is zero throughout, as spiking
    networks have it, nothing is added (torchattacks divides by zero there).

    What attacks share is described in fastsnn.attacks. What differs, or is this attack's own:

        alpha: step: a number, or one per sample [B]; Dong et al. take eps / steps.
        steps: iterations; Dong et al. take 10.
        decay: of the momentum, at least 0; 1 as in Dong et al.

    Returns:
        The last iterate, as pgd returns it.
    """
    ball = ball_of(norm)
    climb = gradient_steps(ball, steps, check.number("decay", decay, at_least=0))
    how = {"bn": bn, "precision": precision, "engine": engine, "surrogate": surrogate, "first": within(ball)}
    return ascend(network, x, y, climb, eps=eps, alpha=alpha, steps=steps, objective=_objective(targeted), **how)


def _objective(targeted: bool) -> Objective:
    if not isinstance(targeted, bool):
        raise TypeError(f"targeted is {targeted!r}, expected True or False; the classes to reach are given as y.")
    return TOWARDS if targeted else AWAY


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


class MIM:
    """mim with its settings held: `MIM(clf, eps=8/255, alpha=2/255, steps=10)(images, y)`; see mim.

    The defaults are those of torchattacks' MIFGSM.
    """

    def __init__(
        self,
        network: Callable,
        eps: float | torch.Tensor | Sequence[float | torch.Tensor] = 8 / 255,
        alpha: float | torch.Tensor = 2 / 255,
        steps: int = 10,
        decay: float = 1.0,
        **how,
    ):
        self.network = network
        self.settings = {"eps": eps, "alpha": alpha, "steps": steps, "decay": decay, **how}

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return adversarial input like x."""
        return mim(self.network, x, y, **self.settings)
