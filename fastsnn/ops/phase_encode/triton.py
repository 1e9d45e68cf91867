"""phase_encode on a GPU, in Triton. Specification: reference.py.

    level = binary expansion of the pixel, K bits      out[t] = bit K-1 - (t mod K) of level

One program reads BLOCK pixels once and writes their T planes, 4 bytes per pixel and step; a plane that recurs after K
steps is computed once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_WARPS = 4
_BLOCK = 4 * 32 * _WARPS  # four pixels per thread: stores of 16 bytes


def forward(images: torch.Tensor, T: int, K: int, weighted: bool) -> torch.Tensor:
    """See reference.forward."""
    images = images.contiguous()
    out = images.new_empty((T, *images.shape), dtype=torch.float32)
    if images.numel():
        grid = (triton.cdiv(images.numel(), _BLOCK),)
        is_float = images.dtype != torch.uint8
        with torch.cuda.device_of(images):
            phase_encode_fwd_kernel[grid](
                images, out, images.numel(), T, K, is_float, weighted, _BLOCK, num_warps=_WARPS, enable_fp_fusion=False
            )
    return out


@triton.jit
def phase_encode_fwd_kernel(
    images_ptr,  # [pixels], uint8 or floats in [0, 1]
    out_ptr,  # [T, pixels]
    pixels: tl.int64,  # t * pixels can pass 2^31
    T: tl.constexpr,
    K: tl.constexpr,
    IS_FLOAT: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the T planes of BLOCK pixels."""
    base = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    owned = lane < tl.minimum(pixels - base, BLOCK).to(tl.int32)
    pixel = tl.load(images_ptr + base + lane, mask=owned)
    if IS_FLOAT:
        top = 2**K - 1
        level = ((pixel.to(tl.float32) * top + 12582912.0) - 12582912.0).to(tl.int32)  # 1.5 * 2^23: half to even
    else:
        level = pixel.to(tl.int32) >> (8 - K) if K < 8 else pixel.to(tl.int32) << (K - 8)
    for phase in tl.static_range(K):
        spikes = ((level >> (K - 1 - phase)) & 1).to(tl.float32)
        if WEIGHTED:
            spikes = spikes * (0.5 / 2**phase)
        for t in range(phase, T, K):
            tl.store(out_ptr + (t * pixels + base) + lane, spikes, mask=owned)
