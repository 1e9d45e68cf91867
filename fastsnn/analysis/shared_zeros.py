"""Zeros that input gradients and weight gradients share (theorem 4.3 of the founding paper)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from .per_sample import per_sample, weighted_layers


class SharedZeros(NamedTuple):
    """Zeros in a layer's weight gradient beside those in the input gradient, over samples.

    Attributes:
        layer: its name.
        zeros: mean share of exact zeros in a sample's gradient at the layer's weight, 0 to 1.
        zeros_at_input: the same in the sample's gradient at x.
        correlation: Pearson's, between the two shares over samples, -1 to 1; NaN where one of them does not vary.
    """

    layer: str
    zeros: float
    zeros_at_input: float
    correlation: float


def shared_zeros(network: nn.Module, x: torch.Tensor, y: torch.Tensor, *, precision: str = "fp32") -> list[SharedZeros]:
    """Measure theorem 4.3: how far zeros in the input gradient and in the weight gradients come from the same chain.

    Statement. With d_l the gradient at the output of layer l, the chain rule gives dL/dx = J_1' d_1 and dL/dW_l =
    d_l * a_(l-1)', and every d_l is a factor of all that lie before it. A zero in d_l is therefore passed on both to
    the input gradient and to the weight gradients of layers 1 to l; the nearer a layer is to the input, the more of the
    chain the two have in common. Assumptions: none for the direction "zero in d_l gives zeros"; that zeros come from
    the chain rather than from silent inputs a_(l-1) is what the correlation tests.

    Args:
        network: from x to logits; one forward and backward pass per sample, in eval mode.
        x: encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1].
        y: labels [B].
        precision: see nn.precision.

    Returns:
        A row for each convolution and linear layer.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
    """
    layers = weighted_layers(network)
    weights, shares = [module.weight for module in layers.values()], []
    for at_x, at_weights in per_sample(network, x, y, weights, precision):
        shares.append([1 - gradient.count_nonzero().item() / gradient.numel() for gradient in (at_x, *at_weights)])
    at_input, *of_layers = torch.tensor(shares, dtype=torch.float64).t()
    return [
        SharedZeros(name, share.mean().item(), at_input.mean().item(), _pearson(at_input, share))
        for name, share in zip(layers, of_layers, strict=True)
    ]


def _pearson(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    both = a.norm() * b.norm()
    return ((a * b).sum() / both).item() if both > 1e-12 else math.nan
