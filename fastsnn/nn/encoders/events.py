"""Event frames, which are encoded input already."""

from __future__ import annotations

import torch
from torch import nn

from ...ops import check
from .unit import unit


class EventFrames(nn.Module):
    """No code at all: frames of recorded events [B, T, C, H, W] -> [T, B, C, H, W], float32 in [0, 1].

    Args:
        T: steps; a recording that has others is refused.
    """

    def __init__(self, T: int = 10):
        super().__init__()
        self.T = check.integer("T", T, at_least=1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Turn uint8 frames (as in data.Dataset, 255 for 1) or floats in [0, 1]."""
        if frames.dim() != 5 or frames.shape[1] != self.T:
            raise ValueError(f"frames has shape {list(frames.shape)}, expected [B, {self.T}, C, H, W].")
        return unit("frames", frames).transpose(0, 1).contiguous()

    def extra_repr(self) -> str:
        """List the settings."""
        return f"T={self.T}"
