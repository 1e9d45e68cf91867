"""The loop that all attacks share: gradient at the iterate, a step, the way back into the ball.

Budgets and restarts are runs of their own, from one draw per restart; copies.py says how many share a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from ..ops import attack_step, check
from ..ops.attack_step import default_batch_axis, per_sample
from . import graph
from .copies import Run, Worst, in_passes
from .gradient import InputGradient, check_input, input_gradient

Budget = float | torch.Tensor
Draw = Callable[[torch.Tensor], torch.Tensor]


def ascend(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: Budget | Sequence[Budget],
    alpha: Budget,
    steps: int,
    draw: Draw | None = None,
    restarts: int = 1,
    **how,
) -> torch.Tensor | list[torch.Tensor]:
    """Climb the cross-entropy of `network` from x by signed steps, inside the Linf ball and [0, 1].

    Args:
        network: from x to logits [B, classes].
        x: encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1].
        y: labels [B], integers.
        eps: budget, at least 0: a number, or one per sample [B]; or a list of such.
        alpha: step, above 0 (where steps > 0): a number, or one per sample [B].
        steps: iterations, at least 0.
        draw: from x to the numbers in [-1, 1] that, times the budget, lead to the first iterate, once per restart, for
            all budgets; None starts at x.
        restarts: at least 1; of several, the worst is kept for each sample: the first that is misclassified, else the
            one of highest cross-entropy.
        **how: the gradient is taken: bn, precision, engine, graph; see input_gradient.

    Returns:
        The last iterate, like x; |result - x| <= eps holds exactly. A list of them for a list of budgets.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it. The network is left as it was found.
    """
    check_input(x, y)
    axis = default_batch_axis(x)
    budgets, alpha = budgets_of(eps, x), per_sample("alpha", alpha, x, axis)
    check.integer("steps", steps, at_least=0)
    check.integer("restarts", restarts, at_least=1)
    if steps and bool((alpha == 0).any()):
        raise ValueError(f"alpha is 0 with steps={steps}: nothing would move; expected alpha above 0, or steps=0.")
    if restarts > 1 and draw is None:
        raise ValueError(f"restarts is {restarts} without a random start: all would be the same; expected 1.")
    worst = [Worst(axis) for _ in budgets]
    with input_gradient(network, **how) as gradient:
        origin, y = x.detach(), y.to(torch.int64, copy=True)  # a copy: inference tensors cannot be differentiated
        runs = _runs(origin, budgets, axis, draw, restarts)
        for run, adv in in_passes(gradient, runs, len(budgets) * restarts, origin, y, alpha, steps, _climb):
            outcome = gradient.outcome(adv, y) if restarts > 1 else None
            worst[run.budget].take(adv, outcome)
    results = [one.adv for one in worst]
    return results if isinstance(eps, (list, tuple)) else results[0]


def budgets_of(eps: Budget | Sequence[Budget], x: torch.Tensor) -> list[torch.Tensor]:
    """Return one budget [B] for each of a list, or a list of one; checked."""
    if isinstance(eps, (list, tuple)) and not eps:
        raise ValueError(f"eps is {eps!r}, expected at least one budget.")
    return [per_sample("eps", e, x, default_batch_axis(x)) for e in (eps if isinstance(eps, (list, tuple)) else [eps])]


def uniform(generator: torch.Generator | Sequence[torch.Generator] | None) -> Draw:
    """Return the draw of numbers in [-1, 1], uniform and independent (Madry et al. 2017).

    Args:
        generator: of random numbers, on x's device; None uses (and advances) torch's global one. A list holds one for
            each sample, so that what a sample gets does not depend on its batch.
    """

    def draw(x: torch.Tensor) -> torch.Tensor:
        how = {"device": x.device}
        if not isinstance(generator, (list, tuple)):
            return torch.rand(x.shape, generator=generator, **how).mul_(2).sub_(1)
        axis = default_batch_axis(x)
        if len(generator) != x.shape[axis]:
            raise ValueError(f"generator is a list of {len(generator)}, expected {x.shape[axis]}: one for each sample.")
        noise = torch.empty(x.shape, **how)
        for sample, one in zip(noise.unbind(axis), generator, strict=True):
            sample.copy_(torch.rand(sample.shape, generator=one, **how))
        return noise.mul_(2).sub_(1)

    return draw


def _runs(origin, budgets, axis, draw, restarts) -> Iterator[Run]:
    for _ in range(restarts):
        noise = None if draw is None else draw(origin)
        for i, eps in enumerate(budgets):
            yield Run(i, eps, origin.clone() if noise is None else _first(origin, noise, eps, axis))


def _first(origin, noise, eps, axis):
    noise = noise * eps.view([-1 if i == axis else 1 for i in range(origin.dim())])
    still = torch.zeros_like(eps)
    return attack_step.step(origin + noise, origin, torch.zeros_like(origin), eps, still, axis, True, None)


def _climb(
    gradient: InputGradient,
    adv: torch.Tensor,
    origin: torch.Tensor,
    y: torch.Tensor,
    eps: torch.Tensor,
    alpha: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """Return the last iterate from the first; eps and alpha hold one value for each sample."""
    axis, done = default_batch_axis(adv), 0
    if gradient.graph is not None:
        adv, done = graph.climb(gradient, adv, origin, y, eps, alpha, steps)
    for i in range(done, steps):
        adv = attack_step.step(adv, origin, gradient(adv, y), eps, alpha, axis, i == steps - 1, None)
    return adv
