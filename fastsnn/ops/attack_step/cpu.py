"""attack_step on a CPU: hands pointers to csrc/cpu/attack_step.inl. Specification: reference.py."""

from __future__ import annotations

import math

import torch

from .. import layout, library


def forward(x, origin, gradient, eps, alpha, batch_axis: int, exact: bool) -> torch.Tensor:
    """See reference.forward."""
    out = torch.empty_like(x)
    if x.numel():
        library.run(
            "attack_step",
            x=x,
            origin=layout.like(origin, x),
            gradient=layout.like(gradient, x),
            eps=eps,
            alpha=alpha,
            out=out,
            elements=x.numel(),
            samples=x.shape[batch_axis],
            sample_inner=math.prod(x.shape[batch_axis + 1 :]),
            exact=exact,
        )
    return out
