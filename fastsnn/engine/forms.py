"""Other ways to compute a product with the same answer: exact algebra, sums in another order.

All of them take and give channels-last frames, so that a whole network runs in one layout and the GEMMs need no copies.
The weights are rearranged once, when a form is built.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

Form = Callable[[torch.Tensor], torch.Tensor]  # [N, C, H, W] -> [N, planes, h, w]


def pointwise(conv: nn.Conv2d, dtype: torch.dtype) -> Form:
    """1x1 convolution as one GEMM over all pixels; a stride gathers the pixels it keeps first."""
    weight, bias, stride = conv.weight.flatten(1).to(dtype).contiguous(), _to(conv.bias, dtype), conv.stride

    def form(x: torch.Tensor) -> torch.Tensor:
        x = x.to(dtype)
        if stride != (1, 1):
            x = x[:, :, :: stride[0], :: stride[1]]
        pixels = x.permute(0, 2, 3, 1)  # two axes for the GEMM: torch would batch it, weights and all
        out = F.linear(pixels.reshape(-1, pixels.shape[3]), weight, bias)
        return out.view(*pixels.shape[:3], -1).permute(0, 3, 1, 2)

    return form


def dense(conv: nn.Conv2d, dtype: torch.dtype, shape: torch.Size) -> Form:
    """A padded convolution on a tiny map as one GEMM with every pixel: zero padding costs nothing.

    On a 1x1 map it is the centre tap alone (9 times fewer products than a 3x3), on 2x2 maps 2.25 times fewer.
    """
    _, C, H, W = shape
    (kh, kw), (sh, sw), (ph, pw) = conv.kernel_size, conv.stride, conv.padding
    h, w = (H + 2 * ph - kh) // sh + 1, (W + 2 * pw - kw) // sw + 1
    planes = conv.out_channels
    matrix = conv.weight.new_zeros(h, w, planes, H, W, C)
    for row in range(h):
        for column in range(w):
            for ky in range(kh):
                for kx in range(kw):
                    y, x = row * sh + ky - ph, column * sw + kx - pw
                    if 0 <= y < H and 0 <= x < W:
                        matrix[row, column, :, y, x] = conv.weight[:, :, ky, kx]
    matrix = matrix.view(h * w * planes, H * W * C).to(dtype)
    bias = None if conv.bias is None else conv.bias.repeat(h * w).to(dtype)

    def form(x: torch.Tensor) -> torch.Tensor:
        pixels = x.to(dtype).permute(0, 2, 3, 1).reshape(len(x), -1)
        return F.linear(pixels, matrix, bias).view(len(x), h, w, planes).permute(0, 3, 1, 2)

    return form


def space_to_depth(conv: nn.Conv2d, dtype: torch.dtype) -> Form:
    """A large kernel with stride 2 as one of half the size with stride 1 on four times the channels."""
    kernel, pad = conv.kernel_size[0], conv.padding[0]
    even = kernel + kernel % 2
    weight = F.pixel_unshuffle(F.pad(conv.weight, (0, even - kernel) * 2), 2).to(dtype)
    weight, bias = weight.contiguous(memory_format=torch.channels_last), _to(conv.bias, dtype)

    def form(x: torch.Tensor) -> torch.Tensor:
        H, W = x.shape[2:]
        h, w = (H + 2 * pad - kernel) // 2 + 1, (W + 2 * pad - kernel) // 2 + 1
        bottom, right = 2 * (h - 1) + even - H - pad, 2 * (w - 1) + even - W - pad
        x = F.pixel_unshuffle(F.pad(x.to(dtype), (pad, right, pad, bottom)), 2)
        return F.conv2d(x.contiguous(memory_format=torch.channels_last), weight, bias)

    return form


def channels_last(conv: nn.Conv2d, dtype: torch.dtype) -> Form:
    """The convolution itself, on channels-last frames and weights."""
    weight, bias = conv.weight.to(dtype).contiguous(memory_format=torch.channels_last), _to(conv.bias, dtype)
    stride, padding, dilation, groups = conv.stride, conv.padding, conv.dilation, conv.groups

    def form(x: torch.Tensor) -> torch.Tensor:
        x = x.to(dtype).contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    return form


def as_it_is(conv: nn.Conv2d, dtype: torch.dtype) -> Form:
    """The layer's own computation, whatever it is."""
    weight, bias, forward = conv.weight.to(dtype), _to(conv.bias, dtype), type(conv)._conv_forward
    conv = weakref.proxy(conv)  # a form outlives no network

    def form(x: torch.Tensor) -> torch.Tensor:
        return forward(conv, x.to(dtype), weight, bias)

    return form


def choose(conv: nn.Conv2d, shape: torch.Size, dtype: torch.dtype) -> tuple[str, str, Form]:
    """Return the name of the form for inputs of `shape` [N, C, H, W], why it was chosen, and the form itself.

    The rule is fixed, so that a network gives the same bits in every run. Times that chose it, in ms for forward and
    input gradient on 160 images in float32 (one core of an AVX-512 server, as is -> form): 512 planes on 1x1 maps
    5.8 + 2.8 -> 0.5 + 0.5, 256 on 2x2 8.4 + 4.2 -> 2.1 + 2.3, 64 -> 256 pointwise on 8x8 14.8 + 8.9 -> 2.9 + 2.5,
    stem 11 + 63 -> 11 + 19, 64 on 8x8 11 + 10 -> 8 + 7.
    """
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    plain = plain and not isinstance(conv.padding, str)
    if plain and conv.kernel_size == (1, 1) and conv.padding == (0, 0):
        return "pointwise GEMM", "1x1 kernel", pointwise(conv, dtype)
    if plain and shape[2] * shape[3] <= 4:
        return "dense GEMM", f"{shape[2]}x{shape[3]} map", dense(conv, dtype, shape)
    square = plain and len({*conv.kernel_size}) == 1 and len({*conv.padding}) == 1
    if square and conv.kernel_size[0] > 3 and conv.stride == (2, 2):
        return "space to depth", "large kernel, stride 2", space_to_depth(conv, dtype)
    if conv.padding_mode != "zeros":
        return "as it is", "its padding is not of zeros", as_it_is(conv, dtype)
    return "channels last", "kernel smaller than the map", channels_last(conv, dtype)


def _to(bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    return None if bias is None else bias.to(dtype)
