"""SA-PGD (Wang et al. 2025, arXiv 2512.22522): PGD whose steps are scaled value by value, for gradients that are noisy.

    r    = g / mean |g|                                  of each sample
    m    = 0.5 m + r                                     m = r at first
    v    = 0.8 v + r^2 / mean r^2                        v = r^2 / mean r^2 at first
    adv  = clip(adv + clip(step * m / sqrt(v), -step, step))     into ball and cube; step = eps at first

The step halves at APGD's checkpoints, whatever the loss does. Settings are those of the authors' code. Dividing by mean
|g| before squaring is the same number, and gradients too small for their squares in float32 keep their ratios.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..ops import check
from ..ops.attack_step import default_batch_axis
from .auto_pgd import checkpoints
from .balls import BALLS
from .draws import Generators
from .gradient import InputGradient
from .objectives import cross_entropy
from .rows import beside, of_each, put
from .until_fooled import Attempt, until_fooled

_KEPT, _KEPT_SQUARES = 0.5, 0.8


def sapgd(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float | torch.Tensor | Sequence[float | torch.Tensor],
    steps: int,
    bn: str = "frozen",
    precision: str = "fp32",
    engine: str | None = "auto",
    surrogate: str | None = "assg",
    generator: Generators = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Stable adaptive PGD in the Linf ball (Wang et al. 2025), with their adaptive surrogate: no step size to choose.

    What attacks share is described in fastsnn.attacks. What differs, or is this attack's own:

        eps: budget, at least 0: a number, or one per sample [B]; or a list of such, attacked one after the other.
        steps: iterations, at least 1; Wang et al. take 100.
        surrogate: what the attacker takes for the gradient of a spike: "assg" adapts to every neuron, step and sample;
            None for the network's own, which any network has.

    Returns:
        Input like x: where an iterate was misclassified, the last such; else x itself, as apgd has it. All is in [0, 1]
        and in the ball exactly; a list of such for a list of budgets.
    """
    climb = _stable_steps(check.integer("steps", steps, at_least=1))
    how = {"bn": bn, "precision": precision, "engine": engine, "surrogate": surrogate}
    draw = BALLS["linf"].surface(generator)
    return until_fooled(network, x, y, climb, eps=eps, draw=draw, losses=lambda _: [lambda _: cross_entropy], **how)


def _stable_steps(steps: int) -> Callable[[InputGradient, Attempt], tuple[torch.Tensor, torch.Tensor]]:
    """Return the climb: the last misclassified iterate of each sample, and whether there was one."""
    checks = dict(checkpoints(steps))

    def climb(gradient: InputGradient, attempt: Attempt) -> tuple[torch.Tensor, torch.Tensor]:
        origin, y, eps, noise = attempt
        axis = default_batch_axis(origin)
        gradient.begin()
        most = beside(eps, origin, axis)
        low, high = (origin - most).clamp(min=0), (origin + most).clamp(max=1)
        adv = (origin + most * noise).clamp(0, 1)
        found = adv.clone()
        g, _, logits = gradient.look(adv, y)
        fooled, size = gradient.objective.reached(logits, y), most
        past = past_squares = None
        for i in range(steps):
            r = _over_mean(g, axis)
            squares = _over_mean(r.square(), axis)
            past = r if past is None else _KEPT * past + r
            past_squares = squares if past_squares is None else _KEPT_SQUARES * past_squares + squares
            step = past / (past_squares.sqrt() + 1e-12) * size
            adv = (adv + step.clamp(-size, size)).clamp(low, high)
            g, _, logits = gradient.look(adv, y)
            wrong = gradient.objective.reached(logits, y)
            put(wrong, adv, found, axis)
            fooled = fooled | wrong
            size = size / 2 if i in checks else size
        return BALLS["linf"].inside(found, origin, eps, axis), fooled

    return climb


def _over_mean(x, axis):
    mean = of_each(lambda flat: flat.abs().mean(1), x, axis)
    return x / beside(torch.where(mean == 0, 1, mean), x, axis)  # where all is zero, it stays so


class SAPGD:
    """sapgd with its settings held: `SAPGD(clf, eps=8/255, steps=100)(images, y)`; see sapgd.

    The defaults are those of Wang et al.
    """

    def __init__(
        self,
        network: Callable,
        eps: float | torch.Tensor | Sequence[float | torch.Tensor] = 8 / 255,
        steps: int = 100,
        **how,
    ):
        self.network, self.settings = network, {"eps": eps, "steps": steps, **how}

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return adversarial input like x."""
        return sapgd(self.network, x, y, **self.settings)
