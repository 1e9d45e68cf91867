"""attack_step on a GPU: hands pointers to csrc/cuda/attack_step.cu. Specification: reference.py."""

from __future__ import annotations

import torch

from .. import gpu, library
from ..cuda_units import Unit
from . import compiled

_WIDTH = 4  # elements per thread: loads of 16 bytes


def forward(x, origin, gradient, eps, alpha, batch_axis: int, exact: bool) -> torch.Tensor:
    """See reference.forward."""

    def run(arguments: library.AttackStepArguments) -> None:
        gpu.launch(Unit("attack_step"), "step", arguments, arguments.elements, _WIDTH, x.device)

    return compiled.forward(run, x, origin, gradient, eps, alpha, batch_axis, exact)
