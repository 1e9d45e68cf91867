"""phase_encode on a GPU: hands pointers to csrc/cuda/phase_encode.cu. Specification: reference.py."""

from __future__ import annotations

import torch

from .. import gpu, library
from ..cuda_units import Unit
from . import compiled

_WIDTH = 4  # pixels per thread: stores of 16 bytes


def forward(images: torch.Tensor, T: int, K: int, weighted: bool) -> torch.Tensor:
    """See reference.forward."""

    def run(arguments: library.PhaseEncodeArguments) -> None:
        gpu.launch(Unit("phase_encode"), "encode", arguments, arguments.pixels, _WIDTH, images.device)

    return compiled.forward(run, images, T, K, weighted)
