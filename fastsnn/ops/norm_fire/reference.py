"""Batch norm's passes over channels, in plain torch: the specification, and what runs on a GPU.

    mean[c], var[c]   over all but the channel axis, biased, as the forward pass uses them (Ioffe and Szegedy 2015)
    sums              of a gradient, and of the gradient times x - mean
    affine            factor[c] * grad + slope[c] * x + constant[c]

x_seq is [T, B, C, ...]; what is per channel is float32 [C].
"""

from __future__ import annotations

import torch


def statistics(x_seq: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the biased variance of each channel."""
    var, mean = torch.var_mean(x_seq.float(), _but_channels(x_seq), correction=0)
    return mean, var


def sums(grad: torch.Tensor, x_seq: torch.Tensor, mean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums of grad and of grad * (x_seq - mean) in each channel."""
    grad, over = grad.float(), _but_channels(x_seq)
    return grad.sum(over), (grad * (x_seq.float() - _like(mean, x_seq))).sum(over)


def affine(
    grad: torch.Tensor, x_seq: torch.Tensor, factor: torch.Tensor, slope: torch.Tensor, constant: torch.Tensor
) -> torch.Tensor:
    """Return factor * grad + slope * x_seq + constant in the storage type of x_seq; grad may be overwritten."""
    factor, slope, constant = (_like(tensor, x_seq) for tensor in (factor, slope, constant))
    return (factor * grad.float() + slope * x_seq.float() + constant).to(x_seq.dtype)


def _but_channels(x_seq):
    return [axis for axis in range(x_seq.dim()) if axis != 2]


def _like(tensor, x_seq):
    return tensor.view(-1, *(1,) * (x_seq.dim() - 3))
