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
    depth: int, pool: str, batch: int = 16, T: int = 10, side: int = 32, device: str = "cpu", seed: int = 2
) -> Pair:
    """Return SEW-ResNets, new, in eval mode with their batch's statistics; without SpikingJelly `theirs` is None.

    With those, neurons fire as often as in training (about one in seven), which decides how much a product leaves out.
    With this seed the four networks of test_attack.py have few spikes at the threshold; see there.
    """
    try:
        from .baselines import reset_net, spikingjelly_sew_resnet
    except ImportError:
        spikingjelly_sew_resnet = None
    torch.manual_seed(seed)
    ours = getattr(fastsnn.models, f"sew_resnet{depth}")(pool)
    theirs = spikingjelly_sew_resnet(depth, pool).to(device) if spikingjelly_sew_resnet else None
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    x, y = functional.phase_encode(images, T).to(device), torch.randint(0, 10, (batch,)).to(device)
    settle(ours.to(device) if theirs is None else theirs, x)
    if theirs is not None:
        reset_net(theirs)
        ours.to(device).load_state_dict(theirs.state_dict())
    return Pair(ours.eval(), theirs, x, y)


@torch.no_grad()
def settle(net: torch.nn.Module, x: torch.Tensor) -> None:
    """Give the norms the statistics of the batch, in eval mode; one pass does: layers see what training shows them."""
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    net.train()(x)
    net.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
