"""What a batch norm does, apart from its passes over the data: which statistics it uses, and how it follows them."""

from __future__ import annotations

import torch
from torch import nn

from ..ops import check
from ..ops.norm_fire import Normed


def uses_batch_statistics(norm: nn.BatchNorm2d) -> bool:
    """Tell whether the norm takes the statistics of the batch at hand rather than the running ones."""
    return norm.training or norm.running_mean is None


def running_affine(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scale and shift [C] that the norm amounts to with its running statistics."""
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


@torch.no_grad()
def follow(norm: nn.BatchNorm2d, batch: Normed) -> None:
    """Move the running statistics towards those of a batch, as torch does in training mode (the variance unbiased).

    A norm in eval mode, or one that keeps no statistics (or is told to keep them as they are), is left as it is.

    Raises:
        ValueError: the norm is one of other channels.
    """
    if not (norm.training and norm.track_running_stats) or norm.running_mean is None:
        return
    check.companion("running_mean", norm.running_mean, batch.mean.shape, "the channels of x_seq", batch.mean.device)
    norm.num_batches_tracked.add_(1)
    momentum = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.mul_(1 - momentum).add_(batch.mean, alpha=momentum)
    norm.running_var.mul_(1 - momentum).add_(batch.var, alpha=momentum * batch.count / (batch.count - 1))
