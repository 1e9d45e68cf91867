"""Gradients that attacks on spiking networks take, beside the shapes that the fused neurons know.

Through time, as the neurons' own backward pass, with ds/dh at u = h - v_threshold:

    exponential   exp(-beta |u|)                                          Ozdenizci and Legenstein 2024
    damped        0.3 exp(-beta |u|)                                      the same
    straight      1                                                       the same
    PDSG          normal density at u - sigma/2 of deviation sigma        Lun et al. 2025; sigma: that of u so far

Without time, from the gradient g at the spikes; xm is the mean current over the threshold, leak what a voltage keeps:

    BPTR          g [some spike]                                          Ding et al. 2022
    RGA           g ([1 - leak <= xm <= 2] (1 - gamma + gamma leak) / (1 + leak) + [0 <= xm <= 1 - leak] gamma)
    HART          the mean over time of g sg(u), sg a triangle of half-width gamma

RGA is Bu et al. 2023's, HART Hao et al. 2024's. Formulas and defaults are those of the authors' codes; leak, reset and
whether the reset is detached are the network's own.
"""

from __future__ import annotations

import math

import torch

from ..ops import check
from ..ops.integrate_fire import Neuron
from ..ops.integrate_fire.reference import above_threshold, surrogate_gradient
from .seen import Back, through_time

_DAMPED = 0.3


class _Stateless:
    is_independent = True

    def begin(self) -> None:
        """Do nothing: nothing was kept."""


class Exponential(_Stateless):
    """exp(-beta |u|) times a height; beta above 0, in their code 0.5, 1 and 2."""

    height = 1.0

    def __init__(self, beta: float = 1.0):
        self.beta = check.number("beta", beta, above=0)

    def back(self, current: torch.Tensor, spikes: torch.Tensor, neuron: Neuron) -> Back:
        """Return the backward pass; see Rule."""
        slopes = self.height * torch.exp(-self.beta * above_threshold(current, neuron).abs())
        return through_time(current, slopes, neuron)


class Damped(Exponential):
    """0.3 exp(-beta |u|), which counts where the gradient goes through time or a shortcut."""

    height = _DAMPED


class Straight(_Stateless):
    """1 wherever the voltage is."""

    def back(self, current: torch.Tensor, spikes: torch.Tensor, neuron: Neuron) -> Back:
        """Return the backward pass; see Rule."""
        return through_time(current, torch.ones_like(current), neuron)


class PDSG(_Stateless):
    """A normal density whose deviation is that of the voltages up to this step: of a channel, over batch and map.

    So a sample's gradient depends on its batch.
    """

    is_independent = False

    def back(self, current: torch.Tensor, spikes: torch.Tensor, neuron: Neuron) -> Back:
        """Return the backward pass; see Rule."""
        u = above_threshold(current, neuron)
        axes = (0, 1, 3, 4) if u.dim() == 5 else tuple(range(u.dim()))
        sigma = torch.cat([_deviation(u[: t + 1], axes) for t in range(len(u))])
        sigma = torch.where(sigma > 0, sigma, 1.0)
        slopes = torch.exp(-0.5 * ((u - 0.5 * sigma) / sigma).square()) / (math.sqrt(2 * math.pi) * sigma)
        return through_time(current, slopes, neuron)


class BPTR(_Stateless):
    """The gradient itself, where a neuron fires at all."""

    def back(self, current: torch.Tensor, spikes: torch.Tensor, neuron: Neuron) -> Back:
        """Return the backward pass; see Rule."""
        fires = spikes.amax(0, keepdim=True) * _gain(neuron)
        return lambda grad: grad * fires


class RGA(_Stateless):
    """The slope of the rate over the mean current; gamma, 0.2 in their code, below the rate's onset."""

    def __init__(self, gamma: float = 0.2):
        self.gamma = check.number("gamma", gamma, above=0)

    def back(self, current: torch.Tensor, spikes: torch.Tensor, neuron: Neuron) -> Back:
        """Return the backward pass; see Rule."""
        gamma, leak = self.gamma, 1.0 if neuron.tau is None else 1 - 1 / neuron.tau
        xm = current.mean(0, keepdim=True) * _gain(neuron) / neuron.v_threshold
        above = ((xm >= 1 - leak) & (xm <= 2)) * ((1 - gamma + gamma * leak) / (leak + 1))
        slopes = (above + ((xm >= 0) & (xm <= 1 - leak)) * gamma) * _gain(neuron)
        return lambda grad: grad * slopes


class HART(_Stateless):
    """A triangle on the voltage, forgotten from step to step, its gradients averaged over time.

    Args:
        gamma: half the triangle's width, above 0; 1 as in their code.
    """

    def __init__(self, gamma: float = 1.0):
        self.alpha = 1 / check.number("gamma", gamma, above=0)

    def back(self, current: torch.Tensor, spikes: torch.Tensor, neuron: Neuron) -> Back:
        """Return the backward pass; see Rule."""
        slopes = surrogate_gradient(above_threshold(current, neuron), "triangle", self.alpha) * _gain(neuron)
        return lambda grad: (grad * slopes).mean(0, keepdim=True).expand_as(grad)


def _deviation(u, axes):
    several = math.prod(u.shape[axis] for axis in axes) > 1
    return u.std(axes, keepdim=True, correction=int(several))


def _gain(neuron: Neuron) -> float:
    """Return what a neuron multiplies its input with."""
    return 1.0 if neuron.tau is None or not neuron.decay_input else 1 / neuron.tau
