"""Memory layouts the kernels walk: time outermost, then frames that are each dense."""

from __future__ import annotations

import math

import torch


def dense(x_seq: torch.Tensor) -> torch.Tensor:
    """Return `x_seq` itself if it is contiguous or channels-last in every frame, else a contiguous copy."""
    return x_seq if is_channels_last(x_seq) else x_seq.contiguous()


def is_channels_last(x_seq: torch.Tensor) -> bool:
    """Tell whether [T, B, C, H, W] is stored with the channels innermost (and is not contiguous as well)."""
    if x_seq.dim() != 5 or x_seq.is_contiguous():
        return False
    _, B, C, H, W = x_seq.shape
    return _same_strides(x_seq, (B * H * W * C, H * W * C, 1, W * C, C))


def like(tensor: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """Return `tensor` with the dtype and the memory layout of the dense tensor `model` of the same shape."""
    if tensor.dtype == model.dtype and _same_strides(tensor, model.stride()):
        return tensor
    return torch.empty_like(model).copy_(tensor)


def channel_inner(x_seq: torch.Tensor) -> int:
    """Return how many neighbours in memory share a channel (axis 2) of the dense tensor `x_seq`."""
    return 1 if is_channels_last(x_seq) else math.prod(x_seq.shape[3:])


def _same_strides(tensor: torch.Tensor, strides: tuple[int, ...]) -> bool:
    """Compare strides where they matter: an axis of one element can have any."""
    own = tensor.stride()
    return own == strides or all(n == 1 or a == b for n, a, b in zip(tensor.shape, own, strides, strict=True))
