"""Pools of channels-last frames, float32 on a CPU: csrc/cpu/pool.inl.

Their specification is torch's max_pool2d and avg_pool2d (padding counted), forward and backward, bit for bit.
Torch's max pool keeps its input and an int64 for each output until the gradient has gone through; a byte is enough.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .. import dispatcher, layout, library
from ..differentiable_once import differentiable_once


class Window(NamedTuple):
    """A square window: its kind, side (at most 15, so that a byte holds a place in it), stride and padding."""

    is_max: bool
    kernel: int
    stride: int
    padding: int


def fits(x_seq: torch.Tensor, window: Window) -> bool:
    """Tell whether `pool` takes x_seq [T, B, C, H, W]: channels-last, float32, on a CPU with the kernels."""
    return (
        x_seq.is_cpu
        and x_seq.dtype == torch.float32
        and x_seq.numel() > 0
        and layout.is_channels_last(x_seq)
        and window.kernel <= 15
        and 0 <= 2 * window.padding <= window.kernel
        and min(x_seq.shape[3:]) + 2 * window.padding >= window.kernel
        and not library.unavailable()
        and not dispatcher.is_needed(x_seq)
    )


def pool(x_seq: torch.Tensor, window: Window) -> torch.Tensor:
    """Pool every step: [T, B, C, H, W] -> [T, B, C, h, w], channels-last; for an x_seq that fits."""
    return _Pool.apply(x_seq, window)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_seq, window):
        frames = x_seq.detach().flatten(0, 1).permute(0, 2, 3, 1)
        N, H, W, C = frames.shape
        h, w = ((n + 2 * window.padding - window.kernel) // window.stride + 1 for n in (H, W))
        out = frames.new_empty(N, h, w, C)
        taps = frames.new_empty(N, h, w, C, dtype=torch.uint8) if window.is_max and ctx.needs_input_grad[0] else None
        _run("pool_forward", frames, out, taps, (N, H, W, C, h, w), window)
        ctx.window, ctx.sizes, ctx.steps = window, (N, H, W, C, h, w), x_seq.shape[:2]
        ctx.save_for_backward(taps)
        return out.permute(0, 3, 1, 2).unflatten(0, ctx.steps)

    @staticmethod
    def backward(ctx, grad_out):
        (taps,) = ctx.saved_tensors
        N, H, W, C, *_ = ctx.sizes
        grad = grad_out.detach().flatten(0, 1).permute(0, 2, 3, 1).contiguous()
        out = grad.new_empty(N, H, W, C)
        _run("pool_backward", grad, out, taps, ctx.sizes, ctx.window)
        (gradient,) = differentiable_once("a pool", (out.permute(0, 3, 1, 2).unflatten(0, ctx.steps),), grad_out)
        return gradient, None


def _run(kernel, source, target, taps, sizes, window):
    pointers = map(library.address, (source, target, taps))
    library.run(kernel, library.PoolArguments(*pointers, *sizes, *window[1:], window.is_max))
