"""Direct coding: no spikes; the first layer's neurons make them."""

from __future__ import annotations

import torch
from torch import nn

from ...ops import check
from .unit import unit


class DirectEncoder(nn.Module):
    """Direct coding: images [B, C, H, W] -> the same picture in every step, [T, B, C, H, W] in [0, 1]; stateless.

    It is what most trained SNNs take, those of SNN-RAT (Ding et al. 2022) among them. Its gradient is exact.

    Args:
        T: steps; 10 as for the other codes.
    """

    def __init__(self, T: int = 10):
        super().__init__()
        self.T = check.integer("T", T, at_least=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Repeat uint8 pixels / 255, or floats in [0, 1]."""
        x = unit("images", images)
        return x.repeat(self.T, *(1,) * x.dim())

    def extra_repr(self) -> str:
        """List the settings."""
        return f"T={self.T}"
