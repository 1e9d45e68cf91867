"""Attacks that stop at success: one run after the other, each on the samples that none before it has fooled.

The result is as AutoAttack's: where a run was successful what it found, and elsewhere the input itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from ..ops.attack_step import default_batch_axis
from .ascend import Budget, budgets_of
from .draws import Draw
from .gradient import InputGradient, check_input
from .input_gradient import input_gradient
from .objectives import Objective, misclassified

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Attempt(NamedTuple):
    """One batch in one ball: what a climb starts from.

    Attributes:
        origin: centre, encoded input [T, B, C, H, W] or images [B, C, H, W].
        y: labels [B], int64.
        eps: budgets [B].
        noise: random numbers for these samples.
    """

    origin: torch.Tensor
    y: torch.Tensor
    eps: torch.Tensor
    noise: torch.Tensor


def until_fooled(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    climb: Callable[[InputGradient, Attempt], tuple[torch.Tensor, torch.Tensor]],
    *,
    eps: Budget | Sequence[Budget],
    draw: Draw,
    losses: Callable[[torch.Tensor], Sequence[Callable[[torch.Tensor], Loss]]],
    **how,
) -> torch.Tensor | list[torch.Tensor]:
    """Attack what is classified rightly, one loss after the other.

    Args:
        network: from x to logits [B, classes].
        x: encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1].
        y: labels [B].
        climb: from gradient and attempt to a point in the ball for each sample, and whether it is misclassified there.
        eps: budget, at least 0: a number, or one per sample [B]; or a list of such, attacked one after the other.
        draw: from x to random numbers, before every run, for all budgets.
        losses: from the logits of x to the runs: each makes a loss from the logits of those that are left.
        **how: the gradient is taken; see input_gradient.

    Returns:
        Input like x; a list of them for a list of budgets.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
    """
    check_input(x, y)
    axis, budgets = default_batch_axis(x), budgets_of(eps, x)
    with input_gradient(network, **how) as gradient:
        origin, y = x.detach().clone(), y.to(torch.int64, copy=True)
        clean = gradient.logits(origin, y)
        results = [origin.clone() for _ in budgets]
        left = [~misclassified(clean, y) for _ in budgets]
        for loss in losses(clean):
            noise = draw(origin)
            for result, standing, budget in zip(results, left, budgets, strict=True):
                some = (standing if gradient.may_leave else torch.ones_like(standing)).nonzero().squeeze(1)
                if not bool(standing.any()):
                    continue
                attempt = Attempt(*(_part(tensor, some) for tensor in (origin, y, budget, noise)))
                own = gradient.again(Objective(loss(clean[some]), misclassified))
                adv, fooled = climb(own, attempt)
                gradient.take(own.finite)
                new = (fooled & standing[some]).nonzero().squeeze(1)
                result.index_copy_(axis, some[new], adv.index_select(axis, new))
                standing[some[new]] = False
    return results if isinstance(eps, (list, tuple)) else results[0]


def _part(tensor, some):
    return tensor.index_select(default_batch_axis(tensor), some)
