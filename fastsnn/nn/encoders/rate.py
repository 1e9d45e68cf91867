"""Rate coding: a pixel's value is the probability of a spike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ...ops import check
from .unit import unit


class RateEncoder(nn.Module):
    """Rate coding: images [B, C, H, W] -> spikes [T, B, C, H, W], in every step 1 with probability x; stateless.

    s[t] = u[t] <= x with u uniform in [0, 1), x = pixel / 255: SpikingJelly's PoissonEncoder, all steps at once. From
    the same random numbers (a seed on a CPU) it gives the same spikes.

    Args:
        T: steps; 10 as in the paper's code.
        straight_through: let attacks on the image see a gradient, as if every step were the image itself, which is what
            it is on average.
        generator: where random numbers come from: a torch.Generator on the images' device, or a sequence with one for
            each image, so that an image's spikes do not depend on its batch; None for torch's global one. Every call
            draws anew.
    """

    def __init__(
        self,
        T: int = 10,
        straight_through: bool = True,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ):
        super().__init__()
        self.T = check.integer("T", T, at_least=1)
        self.straight_through = straight_through
        self.generator = generator

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode uint8 pixels or floats in [0, 1]."""
        x = unit("images", images)
        spikes = (self._uniform(x) <= x).float()
        if self.straight_through and x.requires_grad:
            return spikes + (x - x.detach())  # adds exactly 0
        return spikes

    def _uniform(self, x: torch.Tensor) -> torch.Tensor:
        """Return random numbers [T, *x.shape]."""
        if self.generator is None or isinstance(self.generator, torch.Generator):
            return torch.rand((self.T, *x.shape), generator=self.generator, device=x.device)
        if len(self.generator) != len(x):
            raise ValueError(f"generator has {len(self.generator)} generators, expected one or {len(x)}, as images.")
        out = torch.empty((self.T, *x.shape), device=x.device)
        for i, generator in enumerate(self.generator):
            out[:, i] = torch.rand(out[:, i].shape, generator=generator, device=x.device)
        return out

    def extra_repr(self) -> str:
        """List the settings."""
        return f"T={self.T}, straight_through={self.straight_through}"
