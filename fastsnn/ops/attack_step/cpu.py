"""attack_step on a CPU: hands pointers to csrc/cpu/attack_step.inl. Specification: reference.py."""

from __future__ import annotations

import torch

from .. import library
from . import compiled


def forward(x, origin, gradient, eps, alpha, batch_axis: int, exact: bool) -> torch.Tensor:
    """See reference.forward."""
    inputs = (x, origin, gradient, eps, alpha, batch_axis, exact)
    return compiled.forward(lambda arguments: library.run("attack_step", arguments), *inputs)
