"""APGD (Croce and Hein 2020, algorithm 1): PGD with momentum, whose step halves where the loss has stopped growing.

    z       = back(adv + step * direction(g))                      step = 2 eps at first
    adv'    = back(adv + 0.75 (z - adv) + 0.25 (adv - before))     back: to the nearest point of ball and cube
    at checkpoints, where the loss grew in fewer than 75 % of the steps since the last one, or where neither the best
    loss nor the step has changed since: step = step / 2, and on from the best point

When to check depends on the number of steps alone, and what to do is a tensor, so no value is waited for. The order of
operations is AutoAttack's, up to its comparing the first loss after the start with 0 (as its table of losses begins
there), so that both give the same iterates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from ..ops import check, layout, momentum_step
from ..ops.attack_step import default_batch_axis
from .balls import L2, Linf, ball_of
from .draws import Generators
from .gradient import InputGradient
from .objectives import cross_entropy, dlr, dlr_towards
from .rows import beside, put
from .until_fooled import Attempt, until_fooled

LOSSES = {"ce": cross_entropy, "dlr": dlr}
NORMS = ("linf", "l2")
_MOST_GROWING = 0.75  # of the steps between two checkpoints: rho in the paper


def apgd(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float | torch.Tensor | Sequence[float | torch.Tensor],
    steps: int,
    norm: str = "linf",
    loss: str = "ce",
    restarts: int = 1,
    bn: str = "frozen",
    precision: str = "fp32",
    engine: str | None = "auto",
    surrogate: str | None = None,
    generator: Generators = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Auto-PGD (Croce and Hein 2020, algorithm 1): no step size to choose.

    What attacks share is described in fastsnn.attacks. What differs, or is this attack's own:

        eps: budget, at least 0: a number, or one per sample [B]; or a list of such, attacked one after the other.
        steps: iterations, at least 1; AutoAttack takes 100.
        norm: of the budget, "linf" or "l2".
        loss: "ce", cross-entropy, or "dlr", the difference of logits ratio, which does not vanish where logits are
            large; of at least 3 classes.
        restarts: runs from new starts, each on the samples that are left; AutoAttack takes 5 with 100 steps.

    Returns:
        Input like x: where an iterate was misclassified, the last such; else x itself (as AutoAttack has it). All is
        in [0, 1] and in the ball exactly (for "l2" by the norm in float64); a list of such for a list of budgets.
    """
    check.one_of("loss", loss, LOSSES)
    check.integer("restarts", restarts, at_least=1)

    def losses(clean: torch.Tensor) -> list:
        _check_classes(clean, f"loss is {loss!r}", 3 if loss == "dlr" else 1)
        return [lambda logits: LOSSES[loss]] * restarts

    how = {"bn": bn, "precision": precision, "engine": engine, "surrogate": surrogate}
    return _attack(network, x, y, losses, eps=eps, steps=steps, norm=norm, generator=generator, **how)


def apgdt(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float | torch.Tensor | Sequence[float | torch.Tensor],
    steps: int,
    norm: str = "linf",
    targets: int = 9,
    bn: str = "frozen",
    precision: str = "fp32",
    engine: str | None = "auto",
    surrogate: str | None = None,
    generator: Generators = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Targeted Auto-PGD (Croce and Hein 2020): one run towards each of the likeliest wrong classes.

    Like AutoAttack's it is after any wrong class; the targets, by their logits at x, only guide it.

    What attacks share is described in fastsnn.attacks. What differs, or is this attack's own:

        network: from x to logits [B, classes], of at least 4 classes.
        y: labels [B], the right ones.
        eps: budget, at least 0: a number, or one per sample [B]; or a list of such, attacked one after the other.
        steps: iterations of each run, at least 1; AutoAttack takes 100.
        norm: of the budget, "linf" or "l2".
        targets: how many classes to try at most, the likeliest first, at least 1; 9 as in AutoAttack.

    Returns:
        Input as apgd returns it.
    """
    check.integer("targets", targets, at_least=1)

    def losses(clean: torch.Tensor) -> list:
        _check_classes(clean, "apgdt climbs a ratio of logits", 4)
        ranks = range(2, 2 + min(targets, clean.shape[1] - 1))
        return [lambda logits, rank=rank: dlr_towards(logits.sort(1)[1][:, -rank]) for rank in ranks]

    how = {"bn": bn, "precision": precision, "engine": engine, "surrogate": surrogate}
    return _attack(network, x, y, losses, eps=eps, steps=steps, norm=norm, generator=generator, **how)


def _check_classes(logits, what, fewest):
    if logits.shape[1] < fewest:
        raise ValueError(f"{what}, which takes at least {fewest} classes, but network returned {logits.shape[1]}.")


def _attack(network, x, y, losses, *, eps, steps, norm, generator, **how):
    ball = ball_of(check.one_of("norm", norm, NORMS))
    check.integer("steps", steps, at_least=1)
    draw = ball.surface(generator)
    return until_fooled(network, x, y, auto_steps(ball, steps), eps=eps, draw=draw, losses=losses, **how)


def checkpoints(steps: int) -> Iterator[tuple[int, int]]:
    """Yield after which steps to check, counted from 0, and how many steps were made since the last check.

    22 % of all steps, and 3 % fewer from check to check, down to 6 % (Croce and Hein 2020, section 4).
    """
    since, at = max(int(0.22 * steps), 1), -1
    while (at := at + since) < steps:
        yield at, since
        since = max(since - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))


def auto_steps(ball: Linf | L2, steps: int) -> Callable[[InputGradient, Attempt], tuple[torch.Tensor, torch.Tensor]]:
    """Return the climb: the last misclassified iterate of each sample, and whether there was one."""
    checks = dict(checkpoints(steps))

    def climb(gradient: InputGradient, attempt: Attempt) -> tuple[torch.Tensor, torch.Tensor]:
        origin, y, eps, noise = attempt
        axis = default_batch_axis(origin)
        gradient.begin()
        move = _momentum_step(ball, origin, eps, axis)

        adv = before = (origin + beside(eps, origin, axis) * noise).clamp(0, 1)
        g, loss, logits = gradient.look(adv, y)
        best, best_g, found = adv.clone(), g.clone(), adv.clone()  # written in place from here on
        best_loss, fooled = loss, gradient.objective.reached(logits, y)
        size, losses = 2 * eps, torch.zeros(steps, len(y), device=y.device, dtype=loss.dtype)
        best_at_check, halved = loss, torch.ones_like(fooled)
        for i in range(steps):
            adv, before = move(adv, before, g, size, 0.75 if i else 1.0), adv
            g, losses[i], logits = gradient.look(adv, y)
            wrong = gradient.objective.reached(logits, y)
            put(wrong, adv, found, axis)
            fooled, better = fooled | wrong, losses[i] > best_loss
            put(better, adv, best, axis)
            put(better, g, best_g, axis)
            best_loss = torch.where(better, losses[i], best_loss)
            if i in checks:
                since = slice(i + 1 - checks[i], i + 1)  # the first row is compared with the last, which is 0
                growing = (losses[since] > losses.roll(1, 0)[since]).sum(0)
                stuck = ~halved & (best_at_check >= best_loss)
                halved = (growing <= checks[i] * _MOST_GROWING) | stuck
                best_at_check, size = best_loss, torch.where(halved, size / 2, size)
                put(halved, best, adv, axis)
                put(halved, best_g, g, axis)
        return ball.inside(found, origin, eps, axis), fooled

    return climb


def _momentum_step(ball, origin, eps, axis):
    """Return the function from iterate, the one before, gradient, step sizes [B] and weight to the next iterate."""
    if isinstance(ball, Linf):
        origin = layout.dense(origin)
        return lambda adv, before, g, size, weight: momentum_step.step(adv, before, g, origin, eps, size, weight, axis)

    def back(moved):
        delta = moved.sub_(origin)
        size = ball.size(delta, axis)
        delta.div_(beside(size + 1e-12, delta, axis)).mul_(beside(torch.minimum(eps, size), delta, axis))
        return delta.add_(origin).clamp_(0, 1)

    def move(adv, before, g, size, weight):
        direction = g / beside(ball.size(g, axis) + 1e-12, g, axis)
        z = back(direction.mul_(beside(size, adv, axis)).add_(adv))
        z.sub_(adv).mul_(weight).add_(adv)
        return back(z.add_(adv - before, alpha=1 - weight))  # a power of two: the product is exact

    return move


class APGD:
    """apgd with its settings held: `APGD(clf, eps=8/255, steps=10)(images, y)`, as torchattacks is called; see apgd.

    The defaults are torchattacks'.
    """

    def __init__(
        self,
        network: Callable,
        norm: str = "linf",
        eps: float | torch.Tensor | Sequence[float | torch.Tensor] = 8 / 255,
        steps: int = 10,
        **how,
    ):
        self.network, self.settings = network, {"norm": norm, "eps": eps, "steps": steps, **how}

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return adversarial input like x."""
        return apgd(self.network, x, y, **self.settings)


class APGDT:
    """apgdt with its settings held: `APGDT(clf, eps=8/255, steps=10)(images, y)`; see apgdt.

    The defaults are torchattacks'.
    """

    def __init__(
        self,
        network: Callable,
        norm: str = "linf",
        eps: float | torch.Tensor | Sequence[float | torch.Tensor] = 8 / 255,
        steps: int = 10,
        **how,
    ):
        self.network, self.settings = network, {"norm": norm, "eps": eps, "steps": steps, **how}

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return adversarial input like x."""
        return apgdt(self.network, x, y, **self.settings)
