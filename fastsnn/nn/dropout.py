"""Dropout over time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..ops import check


class Dropout(nn.Module):
    """Dropout that drops the same units at every step, as SNNs need it (Lee et al. 2020): [T, B, ...] -> the same.

    Args:
        p: share of units to drop in train mode, 0 to 1.
        channels: drop whole channels of [T, B, C, H, W] instead of single units.
    """

    def __init__(self, p: float = 0.5, channels: bool = False):
        super().__init__()
        self.p, self.channels = check.number("p", p, at_least=0), channels
        if self.p >= 1:
            raise ValueError(f"p is {p!r}, expected a share from 0 up to, not including, 1.")

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        """Return it with some units 0 and the others scaled up; in eval mode as it is."""
        if not self.training:
            return x_seq
        drop = F.dropout2d if self.channels else F.dropout
        return x_seq * drop(torch.ones_like(x_seq[0]), self.p)

    def extra_repr(self) -> str:
        """List the settings."""
        return f"p={self.p}, channels={self.channels}"
