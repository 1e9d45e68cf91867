"""phase_encode in plain torch: the specification.

    level = pixel >> (8 - K), or << (K - 8)     uint8: the first K bits of pixel / 256
    level = round(x * (2^K - 1))                floats in [0, 1], half to even
    b[t]  = bit K - 1 - (t mod K) of level      most significant first, period K
    out   = b, or 2^-(1 + t mod K) * b          plain, or weighted as in the paper's text

On uint8 with K = 8 this is SpikingJelly's WeightedPhaseEncoder(8) of pixel / 256.
"""

from __future__ import annotations

import torch


def forward(images: torch.Tensor, T: int, K: int, weighted: bool) -> torch.Tensor:
    """Return float32 spikes [T, *images.shape]."""
    if images.dtype == torch.uint8:
        level = images.int() >> (8 - K) if K < 8 else images.int() << (K - 8)
    else:
        level = torch.round(images.float() * (2**K - 1)).int()
    out = torch.empty((T, *images.shape), dtype=torch.float32, device=images.device)
    for t in range(T):
        out[t] = (level >> (K - 1 - t % K)) & 1
        if weighted:
            out[t] *= 2.0 ** -(1 + t % K)
    return out
