"""phase_encode as the kernels in C++ and in CUDA C++ take it; `run(arguments)` launches one."""

from __future__ import annotations

import torch

from .. import library


def forward(run, images: torch.Tensor, T: int, K: int, weighted: bool) -> torch.Tensor:
    """See reference.forward."""
    is_float = images.dtype != torch.uint8
    images = (images.float() if is_float else images).contiguous()
    out = images.new_empty((T, *images.shape), dtype=torch.float32)
    if images.numel():
        sizes = (T, images.numel(), K, is_float, weighted)
        run(library.PhaseEncodeArguments(images.data_ptr(), out.data_ptr(), *sizes))
    return out
