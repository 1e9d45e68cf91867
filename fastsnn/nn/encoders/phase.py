"""Phase coding: the bits of a pixel, one per step."""

from __future__ import annotations

import torch
from torch import nn

from ...functional import phase_encode
from ...ops import check


class PhaseEncoder(nn.Module):
    """Phase coding (Kim et al. 2018): images [B, C, H, W] -> spikes [T, B, C, H, W]; stateless.

    Args:
        T: steps; 10 as in the paper.
        K: phases; 8 as in the paper.
        weighted: give step t the weight 2^-(1 + t mod K), as the paper's text says and its code does not.
        straight_through: let attacks on the image see a gradient, as if every step were the image itself.
    """

    def __init__(self, T: int = 10, K: int = 8, weighted: bool = False, straight_through: bool = True):
        super().__init__()
        self.T = check.integer("T", T, at_least=1)
        self.K = check.integer("K", K, at_least=1, at_most=16)
        self.weighted = weighted
        self.straight_through = straight_through

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode uint8 pixels or floats in [0, 1]."""
        options = {"weighted": self.weighted, "straight_through": self.straight_through}
        return phase_encode(images, self.T, self.K, **options)

    def extra_repr(self) -> str:
        """List the settings."""
        return f"T={self.T}, K={self.K}, weighted={self.weighted}, straight_through={self.straight_through}"
