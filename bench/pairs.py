"""Networks to be compared: ours and SpikingJelly's with the same weights and settled statistics, and what they see."""

from __future__ import annotations

from typing import NamedTuple

import torch

import fastsnn
from fastsnn import functional


class Pair(NamedTuple):
    """Two networks that compute the same, a batch of encoded noise images [T, B, 3, side, side], and labels [B]."""

    ours: torch.nn.Module
    theirs: torch.nn.Module | None
    x: torch.Tensor
    y: torch.Tensor


def pair(
    depth: int, pool: str, batch: int = 16, T: int = 10, side: int = 32, device: str = "cpu", seed: int = 3407
) -> Pair:
    """Return SEW-ResNets, new, settled on their batch, in eval mode; without SpikingJelly `theirs` is None."""
    try:
        from .baselines import reset_net, spikingjelly_sew_resnet
    except ImportError:
        spikingjelly_sew_resnet = None
    torch.manual_seed(seed)
    ours = getattr(fastsnn.models, f"sew_resnet{depth}")(pool)
    theirs = spikingjelly_sew_resnet(depth, pool).to(device) if spikingjelly_sew_resnet else None
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    x, y = functional.phase_encode(images, T).to(device), torch.randint(0, 10, (batch,)).to(device)
    ours.to(device).train()
    with torch.no_grad():
        for _ in range(5):
            if theirs is None:
                ours(x)
            else:
                theirs.train()(x)
                reset_net(theirs)
    if theirs is not None:
        ours.load_state_dict(theirs.eval().state_dict())
    return Pair(ours.eval(), theirs, x, y)
