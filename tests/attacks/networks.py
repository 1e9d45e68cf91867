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


def plain(classes: int = 5, size: int = 8) -> torch.nn.Module:
    """Return a small network of torch's own, smooth and with images [B, 3, size, size], the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = torch.nn.Conv2d(3, 6, 3, stride=2), torch.nn.Tanh(), torch.nn.Flatten()
        wide = 6 * ((size - 1) // 2) ** 2
        return torch.nn.Sequential(*layers, torch.nn.Linear(wide, classes)).eval()


def tiny() -> torch.nn.Module:
    """Return a SEW-ResNet18 of 4 planes as a classifier of images [B, 3, 16, 16], T=4; small changes may fool it."""
    torch.manual_seed(0)
    net = fastsnn.models.sew_resnet18("avg", width=4).train()
    for seed in range(20):
        net(batch(B=16, size=16, seed=seed)[0])
    return fastsnn.Classifier(net, fastsnn.nn.PhaseEncoder(T=4)).eval()
