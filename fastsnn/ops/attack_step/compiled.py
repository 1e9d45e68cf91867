"""attack_step as the kernels in C++ and in CUDA C++ take it; `run(arguments)` launches one."""

from __future__ import annotations

import math

import torch

from .. import library


def forward(run, x, origin, gradient, eps, alpha, batch_axis: int, exact: bool) -> torch.Tensor:
    """See reference.forward."""
    out = torch.empty_like(x)
    if x.numel():
        tensors = (x, origin, gradient, eps, alpha, out)
        sizes = (x.numel(), x.shape[batch_axis], math.prod(x.shape[batch_axis + 1 :]), exact)
        run(library.AttackStepArguments(*map(library.address, tensors), *sizes))
    return out
