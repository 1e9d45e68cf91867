"""ASSG, a surrogate whose width follows each neuron's voltage during an attack (Wang et al. 2025, arXiv 2512.22522).

    M     = 0.9 M + 0.1 |u|                          per neuron, step and sample; u = h - v_threshold; M = 1 at first
    D     = 0.9 D + 0.1 ||u| - M|                    D = 0 at first
    alpha = a / (M + 1.5 D + 1e-4)                   a = 2 tan(pi share) / pi
    ds/dh = (alpha/2) / (1 + (pi/2 alpha u)^2)       the arctan surrogate

Settings as in the authors' code. Where M and D have settled, the surrogate at a distance of M + 1.5 D from the
threshold is cos^2(pi share) of its peak, whatever the layer.
"""

from __future__ import annotations

import math

import torch

from ..ops import check
from ..ops.integrate_fire import Neuron
from ..ops.integrate_fire.reference import above_threshold, surrogate_gradient
from .seen import Back, through_time

_KEPT, _SPREAD, _LEAST = 0.9, 1.5, 1e-4


class Adaptive:
    """The rule of one layer; see the file's head.

    Args:
        share: how far the surrogate may vanish, above 0 and below 1/2; 0.425 as in the authors' code. The larger, the
            narrower.
    """

    is_independent = True

    def __init__(self, share: float = 0.425):
        if check.number("share", share, above=0) >= 0.5:
            raise ValueError(f"share is {share!r}, expected a number above 0 and below 0.5.")
        self.width = 2 * math.tan(math.pi * share) / math.pi
        self.begin()

    def begin(self) -> None:
        """Forget the voltages that were seen."""
        self.mean: float | torch.Tensor = 1.0
        self.deviation: float | torch.Tensor = 0.0

    def back(self, current: torch.Tensor, spikes: torch.Tensor, neuron: Neuron) -> Back:
        """Take note of the voltages, and return the backward pass; see Rule."""
        u = above_threshold(current, neuron)
        size = u.abs()
        self.mean = _KEPT * self.mean + (1 - _KEPT) * size
        self.deviation = _KEPT * self.deviation + (1 - _KEPT) * (size - self.mean).abs()
        alpha = self.width / (self.mean + _SPREAD * self.deviation + _LEAST)
        return through_time(current, surrogate_gradient(u, "atan", alpha), neuron)
