"""G2S with RSF (Liang et al. 2021, arXiv 2001.01587): an attack on binary input, whose iterates are binary too.

    p     = |g| / max |g|                      chance of each place of a sample; gamma where its g is zero throughout
    flip  = u < p, and the flip goes along g   u uniform: 0 -> 1 where g > 0, 1 -> 0 where g < 0; any way under gamma
    adv   = adv xor flip                       of new flips beyond the budget, those of largest p / u are kept

The chance from g is the gradient-to-spike converter (G2S), gamma the restricted spike flipper (RSF). Liang et al. draw
u anew in every step and stop at success without a budget. Here there is one draw, which the golden ratio moves on,
u = frac(u + 0.618...), so that each step has uniform numbers and a place's numbers fill [0, 1) evenly over the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..ops import check
from ..ops.attack_step import default_batch_axis
from .ascend import budgets_of
from .draws import Generators, like
from .gradient import InputGradient, check_input
from .objectives import cross_entropy
from .rows import beside, of_each, put, rows
from .until_fooled import Attempt, until_fooled

_ON = 0.6180339887  # the golden ratio, less 1
_ROUNDED = 1 + 2.0**-24  # a share of 0.7 of 10 places is 7, though 0.7 in float32 is less than 0.7


def g2s(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float | torch.Tensor | Sequence[float | torch.Tensor],
    steps: int,
    gamma: float = 0.05,
    bn: str = "frozen",
    precision: str = "fp32",
    engine: str | None = "auto",
    surrogate: str | None = None,
    generator: Generators = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Flip spikes along the gradient (Liang et al. 2021: G2S and RSF), for input of 0 and 1: events and codes.

    What attacks share is described in fastsnn.attacks. What differs, or is this attack's own:

        x: encoded input [T, B, C, H, W], or any other input with a batch in front; float32, 0 or 1.
        eps: budget, the share of a sample's places (of all time steps) that may differ from x, 0 to 1, rounded down to
            whole places: a number, or one per sample [B]; or a list of such, attacked one after the other.
        steps: iterations, at least 1.
        gamma: the chance of a flip at each place, where a sample's gradient is zero throughout; above 0 and at most 1.

    Returns:
        Input like x, 0 or 1: the first iterate that was misclassified, where there was one; else x itself. At most
        eps * places of a sample differ from x; a list of such for a list of budgets.
    """
    check_input(x, y)
    if not bool(((x == 0) | (x == 1)).all()):
        raise ValueError("x has values between 0 and 1, expected 0 and 1 alone; attack other input with pgd or apgd.")
    for budget in budgets_of(eps, x):
        if bool((budget > 1).any()):
            raise ValueError(f"eps is {budget.max().item():g}, expected a share of the places, from 0 to 1.")
    check.integer("steps", steps, at_least=1)
    if check.number("gamma", gamma, above=0) > 1:
        raise ValueError(f"gamma is {gamma!r}, expected a chance: at most 1.")
    how = {"bn": bn, "precision": precision, "engine": engine, "surrogate": surrogate}
    how |= {"draw": lambda x: like(torch.rand, x, generator), "losses": lambda _: [lambda _: cross_entropy]}
    return until_fooled(network, x, y, _flips(steps, gamma), eps=eps, **how)


def _flips(steps: int, gamma: float) -> Callable[[InputGradient, Attempt], tuple[torch.Tensor, torch.Tensor]]:
    """Return the climb: the first misclassified iterate of each sample, else the origin, and whether there was one."""

    def climb(gradient: InputGradient, attempt: Attempt) -> tuple[torch.Tensor, torch.Tensor]:
        origin, y, eps, u = attempt
        axis = default_batch_axis(origin)
        most = (eps.double() * _ROUNDED * (origin.numel() // max(1, len(y)))).floor().long()
        gradient.begin()
        adv, found = origin, origin.clone()
        fooled = torch.zeros_like(y, dtype=torch.bool)
        for _ in range(steps):
            g = gradient(adv, y)
            adv = flipped(adv, origin, g, u, most, gamma, axis)
            u = (u + _ON).frac()
            wrong = gradient.objective.reached(gradient.logits(adv, y), y)
            put(wrong & ~fooled, adv, found, axis)
            fooled = fooled | wrong
            if bool(fooled.all()):
                break
        return found, fooled

    return climb


def flipped(
    adv: torch.Tensor,
    origin: torch.Tensor,
    g: torch.Tensor,
    u: torch.Tensor,
    most: torch.Tensor,
    gamma: float,
    axis: int,
) -> torch.Tensor:
    """Return the next iterate; see the file's head.

    Args:
        adv: the iterate, 0 or 1, and beside it origin, gradient g and draw u, all of one shape.
        origin: what the budget counts from.
        g: gradient of what is climbed.
        u: uniform in [0, 1).
        most: how many places of each sample may differ from origin [B], int64.
        gamma: chance of a flip where a sample's gradient is zero throughout.
        axis: of the batch.
    """
    largest = beside(of_each(lambda flat: flat.abs().amax(1), g, axis), g, axis)
    nowhere = largest == 0
    p = torch.where(nowhere, gamma, g.abs() / largest)
    along = nowhere | torch.where(adv == 0, g > 0, g < 0)
    out = torch.where(along & (u < p), 1 - adv, adv)
    differs = rows(out != origin, axis)
    over = (differs.sum(1) > most).nonzero().squeeze(1)
    if len(over):
        # what differed before stays; then by p / u
        score = (p / u).where(adv == origin, torch.inf).where(out != origin, -1)
        order = rows(score, axis)[over].sort(dim=1, descending=True, stable=True)[1]
        places = torch.arange(order.shape[1], device=order.device)
        kept = torch.zeros_like(order, dtype=torch.bool).scatter(1, order, places < most[over, None])
        these = origin.movedim(axis, 0)[over]
        these = torch.where(kept.view_as(these), 1 - these, these)
        out = out.index_copy(axis, over, these.movedim(0, axis))
    return out


class G2S:
    """g2s with its settings held: `G2S(net, eps=0.02, steps=25)(spikes, y)`; see g2s.

    The defaults are 2 % of the places and 25 steps, which left 15 % of digits right of 95 %; 50 steps left 5 %
    (docs/attacks.md).
    """

    def __init__(
        self,
        network: Callable,
        eps: float | torch.Tensor | Sequence[float | torch.Tensor] = 0.02,
        steps: int = 25,
        **how,
    ):
        self.network, self.settings = network, {"eps": eps, "steps": steps, **how}

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return adversarial input like x."""
        return g2s(self.network, x, y, **self.settings)
