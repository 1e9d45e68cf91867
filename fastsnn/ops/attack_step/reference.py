"""attack_step in plain torch: the specification.

    moved = x + alpha * sign(gradient)
    out   = clip(origin + clip(moved - origin, -eps, eps), 0, 1)

the order of operations that torchattacks, foolbox and ART share. Rounding origin + eps can leave the ball by half a
unit in the last place; with `exact` such values move one representable number towards the origin, so that
|out - origin| <= eps holds exactly.
"""

from __future__ import annotations

import torch


def forward(
    x: torch.Tensor,
    origin: torch.Tensor,
    gradient: torch.Tensor,
    eps: torch.Tensor,
    alpha: torch.Tensor,
    batch_axis: int,
    exact: bool,
) -> torch.Tensor:
    """Return the next iterate, in the shape of x; eps and alpha hold one value per sample."""
    shape = [-1 if axis == batch_axis else 1 for axis in range(x.dim())]
    eps, alpha = eps.view(shape), alpha.view(shape)
    moved = x + alpha * gradient.sign()
    out = (origin + torch.minimum(torch.maximum(moved - origin, -eps), eps)).clamp(0, 1)
    if exact:
        outside = (out.double() - origin.double()).abs() > eps.double()
        out = torch.where(outside, torch.nextafter(out, origin), out)
    return out
