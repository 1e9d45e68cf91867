"""Density of the first layer's weight gradient against that of the input gradient (theorem 4.4)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from ..attacks.gradient import check_input
from .per_sample import per_sample, weighted_layers


class Densities(NamedTuple):
    """Shares of numbers that are not 0, of every sample: float64 tensors [B].

    Attributes:
        at_weight: in the gradient at the first layer's weight.
        at_input: in the gradient at x.
        factor: what the theorem multiplies at_input with.
        bound: min(1, factor * at_input): at_weight is at most that.
    """

    at_weight: torch.Tensor
    at_input: torch.Tensor
    factor: float
    bound: torch.Tensor


def densities(network: nn.Module, x: torch.Tensor, y: torch.Tensor, *, precision: str = "fp32") -> Densities:
    """Measure theorem 4.4: the first layer's weight gradient is no denser than a factor times the input gradient.

    Statement. Let the first layer be a convolution with k x k windows and stride s, W [O, C, k, k], on x [T, C, H, W],
    and d the gradient at its output. A place p (of a step) with any d[., p] not 0 makes C * taps(p) numbers of dL/dx
    not 0, taps(p) of the k*k lying inside the picture, and at most O * C * taps(p) numbers of dL/dW. A number of dL/dx
    lies in at most ceil(k/s)^2 windows. Added up over places, |dL/dW|_0 <= O * ceil(k/s)^2 * |dL/dx|_0, that is

        density(dL/dW) <= factor * density(dL/dx),   factor = T * H * W * ceil(k/s)^2 / k^2

    Assumption: sums that have a term that is not 0 are not 0 (no exact cancellation, no underflow, W in general
    position). The founding paper's formula did not reach us, so the constant is this derivation's own. The factor is
    large: the theorem binds where the input gradient is sparse to the extreme.

    Args:
        network: from encoded input to logits, its first layer with weights a convolution without groups or dilation;
            one forward and backward pass per sample, in eval mode.
        x: encoded input [T, B, C, H, W], float32 in [0, 1].
        y: labels [B].
        precision: see nn.precision.

    Raises:
        ValueError, TypeError: an argument is wrong, or the first layer another; the message names it.
    """
    check_input(x, y)
    if x.dim() != 5:
        raise ValueError(f"x has shape {list(x.shape)}, expected encoded input [T, B, C, H, W].")
    name, first = next(iter(weighted_layers(network).items()), ("", None))
    if not isinstance(first, nn.Conv2d) or first.groups != 1 or max(first.dilation) > 1:
        raise ValueError(f"network begins with {name}: {first}, expected a convolution without groups or dilation.")
    shares = [
        (at_weight.count_nonzero().item() / at_weight.numel(), at_x.count_nonzero().item() / at_x.numel())
        for at_x, (at_weight,) in per_sample(network, x, y, [first.weight], precision)
    ]
    at_weight, at_input = torch.tensor(shares, dtype=torch.float64).t()
    windows = math.prod(math.ceil(k / s) for k, s in zip(first.kernel_size, first.stride, strict=True))
    factor = x.shape[0] * x.shape[3] * x.shape[4] * windows / math.prod(first.kernel_size)
    return Densities(at_weight, at_input, factor, (factor * at_input).clamp(max=1))
