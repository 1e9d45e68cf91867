"""What all attacks share: checks, budgets, restarts, and the state of the network; and the loop of gradient steps.

An attack is a ball (balls.py), what it climbs (objectives.py), where it starts (draws.py) and how it climbs: by steps
of one size, as here, or otherwise. Budgets and restarts are runs of their own, from one draw per restart; copies.py
says how many share a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from ..ops import check
from ..ops.attack_step import default_batch_axis, per_sample
from . import cycles, graph
from .balls import BALLS, L1, L2, Linf
from .copies import Run, Worst, in_passes
from .draws import Draw
from .gradient import InputGradient, check_input
from .input_gradient import input_gradient
from .rows import beside, of_each

Budget = float | torch.Tensor
Climb = Callable[..., torch.Tensor]


def ascend(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    climb: Climb,
    *,
    eps: Budget | Sequence[Budget],
    steps: int,
    alpha: Budget | None = None,
    first: Callable[..., torch.Tensor],
    draw: Draw | None = None,
    restarts: int = 1,
    **how,
) -> torch.Tensor | list[torch.Tensor]:
    """Climb the loss of `network` from x, inside a ball and [0, 1].

    Args:
        network: from x to logits [B, classes].
        x: encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1].
        y: labels [B], integers.
        climb: from gradient, first iterate, origin, budgets [B], labels [B] and (where there is one) alpha [B] to the
            result; see gradient_steps.
        eps: budget, at least 0: a number, or one per sample [B]; or a list of such.
        steps: iterations, at least 0.
        alpha: step, above 0 (where steps > 0): a number, or one per sample [B]; None where climb has its own.
        first: from origin, draw, budgets and batch axis to the first iterate; see within.
        draw: from x to the point of a ball of budget 1 that, times the budget, leads to the first iterate, once per
            restart, for all budgets; None starts at x.
        restarts: at least 1; of several, the worst is kept for each sample: the first that succeeds, else the one of
            highest loss.
        **how: the gradient is taken: bn, precision, engine, graph, objective, surrogate; see input_gradient.

    Returns:
        The result of climb, like x. A list of them for a list of budgets.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it. The network is left as it was found.
    """
    check_input(x, y)
    axis = default_batch_axis(x)
    budgets = budgets_of(eps, x)
    settings = () if alpha is None else (per_sample("alpha", alpha, x, axis),)
    check.integer("steps", steps, at_least=0)
    check.integer("restarts", restarts, at_least=1)
    if steps and settings and bool((settings[0] == 0).any()):
        raise ValueError(f"alpha is 0 with steps={steps}: nothing would move; expected alpha above 0, or steps=0.")
    if restarts > 1 and draw is None:
        raise ValueError(f"restarts is {restarts} without a random start: all would be the same; expected 1.")
    worst = [Worst(axis) for _ in budgets]
    with input_gradient(network, **how) as gradient:
        origin, y = x.detach(), y.to(torch.int64, copy=True)  # a copy: inference tensors cannot be differentiated
        runs = _runs(origin, budgets, axis, first, draw, restarts)
        for run, adv in in_passes(gradient, runs, len(budgets) * restarts, origin, (y, *settings), climb):
            outcome = gradient.outcome(adv, y) if restarts > 1 else None
            worst[run.budget].take(adv, outcome)
    results = [one.adv for one in worst]
    return results if isinstance(eps, (list, tuple)) else results[0]


def budgets_of(eps: Budget | Sequence[Budget], x: torch.Tensor) -> list[torch.Tensor]:
    """Return one budget [B] for each of a list, or a list of one; checked."""
    if isinstance(eps, (list, tuple)) and not eps:
        raise ValueError(f"eps is {eps!r}, expected at least one budget.")
    return [per_sample("eps", e, x, default_batch_axis(x)) for e in (eps if isinstance(eps, (list, tuple)) else [eps])]


def _runs(origin, budgets, axis, first, draw, restarts) -> Iterator[Run]:
    for _ in range(restarts):
        noise = None if draw is None else draw(origin)
        for i, eps in enumerate(budgets):
            yield Run(i, eps, origin.clone() if noise is None else first(origin, noise, eps, axis))


def within(ball: Linf | L2 | L1) -> Callable[..., torch.Tensor]:
    """Return the function from origin and a draw to a first iterate that is exactly in the ball and in [0, 1]."""

    def first(origin: torch.Tensor, noise: torch.Tensor, eps: torch.Tensor, axis: int) -> torch.Tensor:
        return ball.back(origin + noise * beside(eps, origin, axis), origin, eps, axis, True)

    return first


def gradient_steps(ball: Linf | L2 | L1, steps: int, decay: float | None = None) -> Climb:
    """Return the climb by steps of one size: along the gradient, or with a decay along their decaying sum."""

    def climb(
        gradient: InputGradient,
        adv: torch.Tensor,
        origin: torch.Tensor,
        eps: torch.Tensor,
        y: torch.Tensor,
        alpha: torch.Tensor,
    ) -> torch.Tensor:
        """Return the last iterate from the first; eps, y and alpha hold one value for each sample."""
        axis, done, past = default_batch_axis(adv), 0, None
        gradient.begin()
        is_plain = ball is BALLS["linf"] and decay is None
        if is_plain and cycles.may_be_found(gradient, steps):
            adv, done = cycles.climb(gradient, adv, origin, y, eps, alpha, steps - 1), steps - 1
        if is_plain and gradient.replays is not None:
            adv, more = graph.climb(gradient, adv, origin, y, eps, alpha, steps - done)
            done += more
        for i in range(done, steps):
            direction = gradient(adv, y)
            if decay is not None:
                past = direction = _remembered(direction, past, decay, axis)
            adv = ball.step(adv, origin, direction, eps, alpha, axis, i == steps - 1)
        return adv

    return climb


def _remembered(direction, past, decay, axis):
    """Return the gradient over its mean size, and the decayed past (Dong et al. 2018, eq. 6)."""
    size = of_each(lambda flat: flat.abs().mean(1), direction, axis)
    direction = direction / beside(torch.where(size == 0, 1, size), direction, axis)  # where all is zero, it stays so
    return direction if past is None else direction.add_(past.mul_(decay))
