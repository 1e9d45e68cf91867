"""Batch norm's passes on a CPU, for float32 frames with channels innermost: csrc/cpu/channels.inl.

Specification: reference.py. Against torch's own: sums that are exact to float32 in this layout, the same bits for any
number of threads, and two passes for the gradient.
"""

from __future__ import annotations

import torch

from .. import layout, library

_CHUNK = 16384  # elements that one task sums up: 64 KiB


def serves(x_seq: torch.Tensor) -> bool:
    """Tell whether these kernels can take x_seq: float32 on a CPU, channels innermost."""
    return (
        x_seq.dtype == torch.float32
        and x_seq.is_cpu
        and x_seq.numel() > 0
        and not library.unavailable()
        and (layout.is_channels_last(x_seq) or (x_seq.is_contiguous() and layout.channel_inner(x_seq) == 1))
    )


def statistics(x_seq: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See reference.statistics."""
    rows, zeros = x_seq.numel() // x_seq.shape[2], x_seq.new_zeros(x_seq.shape[2])
    mean = (_sums(None, x_seq, zeros)[0] / rows).float()
    return mean, (_sums(None, x_seq, mean)[1] / rows).float()


def sums(grad: torch.Tensor, x_seq: torch.Tensor, mean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See reference.sums; grad has the layout of x_seq."""
    first, second = _sums(grad, x_seq, mean)
    return first.float(), second.float()


def affine(grad, x_seq, factor, slope, constant) -> torch.Tensor:
    """See reference.affine; grad, of the layout of x_seq, is overwritten and returned."""
    pointers = [tensor.data_ptr() for tensor in (grad, x_seq)]
    constants = [tensor.data_ptr() for tensor in (factor, slope, constant)]
    sizes = (x_seq.numel() // x_seq.shape[2], x_seq.shape[2], 0)
    arguments = library.ChannelsArguments(*pointers, None, *constants, grad.data_ptr(), None, *sizes)
    library.run("channel_affine", arguments)
    return grad


def _sums(grad, x_seq, mean):
    channels = x_seq.shape[2]
    rows = x_seq.numel() // channels
    chunk_rows = max(16, _CHUNK // channels)
    partial = x_seq.new_empty(-(-rows // chunk_rows), 2, channels, dtype=torch.float64)
    pointers = (library.address(grad), x_seq.data_ptr(), mean.data_ptr(), None, None, None, None, partial.data_ptr())
    library.run("channel_sums", library.ChannelsArguments(*pointers, rows, channels, chunk_rows))
    return partial[0]
