"""Small networks whose running statistics fit their input, so that their neurons do fire."""

from __future__ import annotations

import torch

import fastsnn

from ..spikingjelly_networks import batch


def settled(depth: int = 18, pool: str = "max", width: int = 8, batches: int = 5) -> torch.nn.Module:
    """Return a network in eval mode."""
    torch.manual_seed(0)
    net = fastsnn.models.BUILDERS[f"sew_resnet{depth}"](pool, width=width).train()
    for seed in range(batches):
        net(batch(B=8, seed=seed)[0])
    return net.eval()
