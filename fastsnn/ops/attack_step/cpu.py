"""attack_step on a CPU: hands pointers to csrc/cpu/attack_step.inl. Specification: reference.py."""

from __future__ import annotations

import math

import torch

from .. import library


def forward(x, origin, gradient, eps, alpha, batch_axis: int, exact: bool) -> torch.Tensor:
    """See reference.forward."""
    out = torch.empty_like(x)
    if x.numel():
        tensors = (x, origin, gradient, eps, alpha, out)
        sizes = (x.numel(), x.shape[batch_axis], math.prod(x.shape[batch_axis + 1 :]), exact)
        library.run("attack_step", library.AttackStepArguments(*map(library.address, tensors), *sizes))
    return out
