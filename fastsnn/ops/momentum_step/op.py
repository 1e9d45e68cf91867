"""momentum_step by csrc/cpu/momentum_step.inl on a CPU, a pass instead of ten; elsewhere by torch."""

from __future__ import annotations

import math

import torch

from .. import dispatcher, layout, library
from . import reference


def step(
    adv: torch.Tensor,
    before: torch.Tensor,
    gradient: torch.Tensor,
    origin: torch.Tensor,
    eps: torch.Tensor,
    size: torch.Tensor,
    weight: float,
    batch_axis: int,
) -> torch.Tensor:
    """Return the next iterate, like adv: channels-last where [T, B, C, H, W] is, else contiguous.

    Args:
        adv: iterate, float32 in [0, 1].
        before: the iterate before it, like adv.
        gradient: at adv, like adv.
        origin: centre of the ball, like adv.
        eps: budgets [B], float32.
        size: step sizes [B], float32.
        weight: of this step against the one before, a power of two or a sum of few, so that products with 1 - weight
            are exact: torch may fuse them with an addition.
        batch_axis: of the samples.
    """
    tensors = (adv, before, gradient, origin)
    if not adv.is_cpu or adv.dtype != torch.float32 or library.unavailable() or dispatcher.is_needed(*tensors):
        return layout.like(reference.forward(*tensors, eps, size, weight, batch_axis), layout.dense(adv))
    adv = layout.dense(adv)
    others = [layout.like(tensor, adv) for tensor in (before, gradient, origin)]
    out = torch.empty_like(adv)
    if adv.numel():
        inputs = (adv, *others, eps.contiguous(), size.contiguous(), out)
        sizes = (adv.numel(), adv.shape[batch_axis], math.prod(adv.shape[batch_axis + 1 :]), weight)
        library.run("momentum_step", library.MomentumStepArguments(*map(library.address, inputs), *sizes))
    return out
