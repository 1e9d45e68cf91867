"""Time to first spike: the brighter a pixel, the earlier its one spike."""

from __future__ import annotations

import torch
from torch import nn

from ...ops import check
from .unit import unit

FUNCTIONS = ("linear", "log")


class LatencyEncoder(nn.Module):
    """Time-to-first-spike coding: images [B, C, H, W] -> spikes [T, B, C, H, W], one for every pixel; stateless.

    The spike is at step t = round((T - 1)(1 - x)), "linear", or t = round(T - 1 - ln(a x + 1)) with a = e^(T - 1) - 1,
    "log"; x = pixel / 255. Either way 1 fires at step 0 and 0 at step T - 1, as SpikingJelly's LatencyEncoder does.

    No gradient gets through: what an image changes is when a spike comes, and no step stands for the image. Attack the
    encoded input instead.

    Args:
        T: steps; 10 as in the paper's code.
        function: "linear", as in the paper's code, or "log", computed in float64.
    """

    def __init__(self, T: int = 10, function: str = "linear"):
        super().__init__()
        self.T = check.integer("T", T, at_least=1)
        self.function = check.one_of("function", function, FUNCTIONS)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode uint8 pixels or floats in [0, 1]."""
        x, last = unit("images", images).detach(), self.T - 1.0
        if self.function == "linear":
            when = last * (1.0 - x)
        else:  # ln(a x + 1) = ln(e^(T - 1) x + 1 - x), without an e^(T - 1) that overflows
            x = x.double()
            when = last - torch.logaddexp(last + x.log(), torch.log1p(-x))
        steps = torch.arange(self.T, device=x.device).view(-1, *(1,) * x.dim())
        return (steps == when.round()).float()

    def extra_repr(self) -> str:
        """List the settings."""
        return f"T={self.T}, function={self.function!r}"
