"""momentum_step in plain torch: the specification (Croce and Hein 2020, algorithm 1, in AutoAttack's order).

    z   = clip(adv + size * sign(gradient))
    out = clip(adv + weight * (z - adv) + (1 - weight) * (adv - before))

where clip is to [max(origin - eps, 0), min(origin + eps, 1)].
"""

from __future__ import annotations

import torch


def forward(
    adv: torch.Tensor,
    before: torch.Tensor,
    gradient: torch.Tensor,
    origin: torch.Tensor,
    eps: torch.Tensor,
    size: torch.Tensor,
    weight: float,
    batch_axis: int,
) -> torch.Tensor:
    """Return the next iterate, in the shape of adv; eps and size hold one value per sample."""
    shape = [-1 if axis == batch_axis else 1 for axis in range(adv.dim())]
    eps, size = eps.view(shape), size.view(shape)
    low, high = (origin - eps).clamp_(min=0), (origin + eps).clamp_(max=1)
    z = gradient.sign().mul_(size).add_(adv).clamp_(low, high)
    z.sub_(adv).mul_(weight).add_(adv)
    return z.add_(adv - before, alpha=1 - weight).clamp_(low, high)
