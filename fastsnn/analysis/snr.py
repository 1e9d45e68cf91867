"""Signal and noise of the gradient when a network is extended in time (theorem 4.2 of the founding paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from ..attacks.gradient import check_input
from ..ops import check
from .per_sample import per_sample, weighted_layers


class GradientSNR(NamedTuple):
    """Signal and noise of a weight's gradient with T time steps.

    Attributes:
        T: time steps.
        signal: |E g|_2^2, without the bias that the noise of a finite sample gives it; may come out below 0.
        noise: E |g - E g|_2^2, the trace of the covariance.
        snr: signal / noise.
    """

    T: int
    signal: float
    noise: float
    snr: float


def gradient_snr(
    network: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    T: Sequence[int] = (1, 2, 4, 8),
    layer: str | None = None,
    precision: str = "fp32",
) -> list[GradientSNR]:
    """Measure how the gradient's signal-to-noise ratio changes with the number of time steps.

    Statement. The gradient at a shared weight is a mean over time, g = 1/T * sum of g_t. If all g_t have the same mean
    and covariance, and the noises of two steps the correlation rho, then

        SNR(T) = |E g|^2 / E |g - E g|^2 = SNR(1) * T / (1 + (T - 1) * rho)

    so that time averages noise away (rho = 0: T times the ratio) unless it repeats itself (rho = 1: no gain).
    Assumptions: logits are means over time, and the loss's gradient at them does not change with T. SNR as in Liu et
    al. 2020 ("Understanding why neural networks generalize well through GSNR of parameters", definition 2.1), over
    samples, summed over a layer's weights. The founding paper's theorem 4.2 reached us without its formula: this is the
    part of it that follows from averaging alone. Membranes carry charge on, so that real steps are neither alike nor
    uncorrelated; the measurement shows by how much.

    Args:
        network: from encoded input to logits; one forward and backward pass per sample and T, in eval mode.
        x: encoded input [T, B, C, H, W], float32 in [0, 1], B at least 2; its first steps are used.
        y: labels [B].
        T: numbers of steps, each from 1 to x.shape[0].
        layer: name of the convolution or linear layer; None takes the first.
        precision: see nn.precision.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
    """
    layers = weighted_layers(network)
    if not layers:
        raise ValueError("network has no convolution or linear layer, expected one whose gradient can be measured.")
    layer = next(iter(layers)) if layer is None else check.one_of("layer", layer, layers)
    check_input(x, y)
    if x.dim() != 5 or x.shape[1] < 2:
        raise ValueError(f"x has shape {list(x.shape)}, expected encoded input [T, B, C, H, W] with B of at least 2.")
    rows = []
    if not T:
        raise ValueError("T is empty, expected at least one number of steps.")
    for steps in T:
        check.integer("T", steps, at_least=1, at_most=x.shape[0])
        count, mean, squares = 0, 0.0, 0.0
        for _, (gradient,) in per_sample(network, x[:steps], y, [layers[layer].weight], precision):
            gradient, count = gradient.double(), count + 1
            before = gradient - mean  # Welford's update: one pass, no cancellation
            mean = mean + before / count
            squares = squares + (before * (gradient - mean)).sum()
        noise = (squares / (count - 1)).item()
        signal = mean.square().sum().item() - noise / count
        rows.append(GradientSNR(steps, signal, noise, signal / noise if noise else float("inf")))
    return rows
