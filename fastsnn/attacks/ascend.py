"""The loop that all attacks share: gradient at the iterate, a step, the way back into the ball."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..ops import attack_step, check
from ..ops.attack_step import default_batch_axis, per_sample
from .fold import repeat
from .gradient import check_input, input_gradient


def ascend(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float | torch.Tensor,
    alpha: float | torch.Tensor,
    steps: int,
    start: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    **how,
) -> torch.Tensor:
    """Climb the cross-entropy of `network` from x by signed steps, inside the Linf ball and [0, 1].

    Args:
        network: from x to logits [B, classes].
        x: encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1].
        y: labels [B], integers.
        eps: budget, at least 0: a number, or one per sample [B].
        alpha: step, above 0 (where steps > 0): a number, or one per sample [B].
        steps: iterations, at least 0.
        start: from x and the budgets [B] to the first iterate, in the ball; None starts at x.
        **how: the gradient is taken: bn, precision, engine; see input_gradient.

    Returns:
        The last iterate, like x; |result - x| <= eps holds exactly.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it. The network is left as it was found.
    """
    check_input(x, y)
    axis = default_batch_axis(x)
    eps, alpha = per_sample("eps", eps, x, axis), per_sample("alpha", alpha, x, axis)
    check.integer("steps", steps, at_least=0)
    if steps and bool((alpha == 0).any()):
        raise ValueError(f"alpha is 0 with steps={steps}: nothing would move; expected alpha above 0, or steps=0.")
    with input_gradient(network, y, **how) as gradient:
        origin = x.detach()
        adv = origin.clone() if start is None else start(origin, eps)
        for i in range(steps):
            adv = attack_step.step(adv, origin, gradient(adv), eps, alpha, axis, i == steps - 1, None)
    return adv


def uniform_start(generator: torch.Generator | None) -> Callable[..., torch.Tensor]:
    """Return the start that draws every coordinate uniformly from the ball, clipped to [0, 1] (Madry et al. 2017).

    It draws at its first call only, so that further calls start from the same place in balls of other budgets.

    Args:
        generator: of random numbers, on x's device; None uses (and advances) torch's global one.
    """
    drawn = None

    def start(x: torch.Tensor, eps: torch.Tensor, copies: int = 1) -> torch.Tensor:
        nonlocal drawn
        axis = default_batch_axis(x)
        if drawn is None:
            shape = [n // copies if i == axis else n for i, n in enumerate(x.shape)]
            drawn = torch.rand(shape, generator=generator, device=x.device).mul_(2).sub_(1)
        budgets = eps.view([-1 if i == axis else 1 for i in range(x.dim())])
        noise = repeat(drawn, copies, axis) * budgets
        still = torch.zeros_like(eps)
        return attack_step.step(x + noise, x, torch.zeros_like(x), eps, still, axis, True, None)

    return start
