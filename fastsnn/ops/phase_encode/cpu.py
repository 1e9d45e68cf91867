"""phase_encode on a CPU: hands pointers to csrc/cpu/phase_encode.inl. Specification: reference.py."""

from __future__ import annotations

import torch

from .. import library
from . import compiled


def forward(images: torch.Tensor, T: int, K: int, weighted: bool) -> torch.Tensor:
    """See reference.forward."""
    return compiled.forward(lambda arguments: library.run("phase_encode", arguments), images, T, K, weighted)
