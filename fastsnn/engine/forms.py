"""Ways to compute a convolution (or a linear layer) with the same answer: exact algebra, sums in another order.

A form takes frames [N, H, W, C], channels innermost, and gives frames; its `backward` takes the gradient at the output
and gives the gradient at the input. The weights are rearranged once, when a form is built, and nothing is saved in
between. A whole network runs in this one layout, so that a GEMM sees its pixels without a copy.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..ops import library
from ..ops.convolution import Convolution
from ..ops.matrix import Matrix
from ..ops.winograd import Filter, weight_gradient


class Dtypes(NamedTuple):
    """In which types a layer computes.

    Attributes:
        frames: what comes in and goes out.
        products: that of forward products, for forms that have kernels for it: frames', or int16 for spikes.
        gradient: that of the gradient's products: frames', or bfloat16.
    """

    frames: torch.dtype
    products: torch.dtype
    gradient: torch.dtype


class Form(ABC):
    """A convolution rearranged; the classes below say how, and `name` is what `explain` calls them.

    Attributes:
        products: the type that forward products are made in, where it is not that of frames.
    """

    name: str
    products: torch.dtype | None = None

    @abstractmethod
    def __init__(self, conv: nn.Conv2d | nn.Linear, dtypes: Dtypes, shape: torch.Size):
        """Rearrange the weights of `conv` for frames of `shape` [N, H, W, in]."""

    @abstractmethod
    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """[N, H, W, in] -> [N, h, w, out]."""

    @abstractmethod
    def backward(self, grad: torch.Tensor) -> torch.Tensor:
        """[N, h, w, out] -> [N, H, W, in]."""

    def weight_gradient(self, conv: nn.Conv2d, frames: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """[N, H, W, in], [N, h, w, out] -> the gradient at the weight of `conv`, by torch."""
        how = (list(conv.stride), list(conv.padding), list(conv.dilation), False, [0, 0], conv.groups)
        inputs = (grad.permute(0, 3, 1, 2), frames.permute(0, 3, 1, 2), conv.weight, None)
        return torch.ops.aten.convolution_backward(*inputs, *how, [False, True, False])[1]


class Rows(Form):
    """A linear layer as one GEMM, on frames of one pixel."""

    name = "GEMM"

    def __init__(self, conv, dtypes, shape):
        self.rows = _Rows(conv.weight, conv.bias, dtypes)
        self.products = self.rows.products

    def forward(self, frames):
        """[N, 1, 1, in] -> [N, 1, 1, out]."""
        return self.rows.forward(frames.flatten(0, 2))[:, None, None]

    def backward(self, grad):
        """[N, 1, 1, out] -> [N, 1, 1, in]."""
        return self.rows.backward(grad.flatten(0, 2))[:, None, None]


class Pointwise(Form):
    """A 1x1 convolution as one GEMM over all pixels; a stride gathers the pixels it keeps first."""

    name = "pointwise GEMM"

    def __init__(self, conv, dtypes, shape):
        self.rows = _Rows(conv.weight.flatten(1), conv.bias, dtypes)
        self.products = self.rows.products
        self.stride, self.size = conv.stride, shape[1:3]

    def forward(self, frames):
        """[N, H, W, in] -> [N, h, w, out]."""
        kept = frames[:, :: self.stride[0], :: self.stride[1]]
        return self.rows.forward(kept.reshape(-1, kept.shape[3])).view(*kept.shape[:3], -1)

    def backward(self, grad):
        """[N, h, w, out] -> [N, H, W, in]."""
        kept = self.rows.backward(grad.reshape(-1, grad.shape[3])).view(*grad.shape[:3], -1)
        if self.stride == (1, 1):
            return kept
        frames = kept.new_zeros(len(grad), *self.size, kept.shape[3])
        frames[:, :: self.stride[0], :: self.stride[1]] = kept
        return frames

    def weight_gradient(self, conv, frames, grad):
        """[N, H, W, in], [N, h, w, out] -> [out, in, 1, 1], one GEMM."""
        kept = frames[:, :: self.stride[0], :: self.stride[1]].reshape(-1, frames.shape[3])
        return (grad.reshape(-1, grad.shape[3]).t() @ kept)[:, :, None, None]


class Dense(Form):
    """A padded convolution on a tiny map as one GEMM with every pixel: zero padding costs nothing.

    On a 1x1 map it is the centre tap alone (9 times fewer products than a 3x3).
    """

    name = "dense GEMM"

    def __init__(self, conv, dtypes, shape):
        _, H, W, C = shape
        (kh, kw), (sh, sw), (ph, pw) = conv.kernel_size, conv.stride, conv.padding
        h, w = (H + 2 * ph - kh) // sh + 1, (W + 2 * pw - kw) // sw + 1
        planes = conv.out_channels
        self.taps = [
            (row, column, ky, kx, row * sh + ky - ph, column * sw + kx - pw)
            for row, column, ky, kx in itertools.product(range(h), range(w), range(kh), range(kw))
            if 0 <= row * sh + ky - ph < H and 0 <= column * sw + kx - pw < W
        ]
        matrix = conv.weight.new_zeros(h, w, planes, H, W, C)
        for row, column, ky, kx, y, x in self.taps:
            matrix[row, column, :, y, x] = conv.weight[:, :, ky, kx]
        bias = None if conv.bias is None else conv.bias.repeat(h * w)
        self.rows = _Rows(matrix.view(h * w * planes, H * W * C), bias, dtypes)
        self.products = self.rows.products
        self.input, self.output = (H, W, C), (h, w, planes)

    def forward(self, frames):
        """[N, H, W, in] -> [N, h, w, out]."""
        return self.rows.forward(frames.reshape(len(frames), -1)).view(-1, *self.output)

    def backward(self, grad):
        """[N, h, w, out] -> [N, H, W, in]."""
        return self.rows.backward(grad.reshape(len(grad), -1)).view(-1, *self.input)

    def weight_gradient(self, conv, frames, grad):
        """[N, H, W, in], [N, h, w, out] -> like the weight, one GEMM; taps that only meet padding get zeros."""
        matrix = grad.reshape(len(grad), -1).t() @ frames.reshape(len(frames), -1)
        matrix, gradient = matrix.view(*self.output, *self.input), torch.zeros_like(conv.weight)
        for row, column, ky, kx, y, x in self.taps:
            gradient[:, :, ky, kx] += matrix[row, column, :, y, x]
        return gradient


class Winograd(Form):
    """A 3x3 convolution with padding 1 as fewer products: 36 for 144 on 4x4 outputs, 9 for 16 on a 2x2 map.

    Its sums are less exact than the plain ones, by a factor of 9 (rms) with tiles of 4: 1e-6 of the output's spread.
    """

    name = "Winograd"

    def __init__(self, conv, dtypes, shape):
        tile, self.bias = 2 if shape[1:3] == (2, 2) else 4, conv.bias
        self.filter = Filter(conv.weight, tile, dtype=dtypes.products)
        self.products = self.filter.dtype
        # the gradient of a convolution is one with turned kernels
        self.turned = Filter(conv.weight, tile, turned=True, dtype=dtypes.gradient)

    def forward(self, frames):
        """[N, H, W, in] -> [N, h, w, out]."""
        out = self.filter(frames)
        return out if self.bias is None else out.add_(self.bias)

    def backward(self, grad):
        """[N, h, w, out] -> [N, H, W, in]."""
        return self.turned(grad)

    def weight_gradient(self, conv, frames, grad):
        """[N, H, W, in], [N, h, w, out] -> [out, in, 3, 3], in as few products as the convolution."""
        return weight_gradient(frames, grad, self.filter.tile)


class Windows(Form):
    """A square convolution as one GEMM with its windows, which a kernel of our own gathers in the cache."""

    name = "windows GEMM"

    def __init__(self, conv, dtypes, shape):
        self.convolution = Convolution(conv.weight, conv.stride[0], conv.padding[0], dtypes.gradient, dtypes.products)
        self.products = self.convolution.dtype
        self.bias, self.size = conv.bias, tuple(shape[1:3])

    def forward(self, frames):
        """[N, H, W, in] -> [N, h, w, out]."""
        out = self.convolution.forward(frames)
        return out if self.bias is None else out.add_(self.bias)

    def backward(self, grad):
        """[N, h, w, out] -> [N, H, W, in]."""
        return self.convolution.backward(grad, self.size)


class SpaceToDepth(Form):
    """A large kernel with stride 2 as one of half the size with stride 1 on four times the channels."""

    name = "space to depth"

    def __init__(self, conv, dtypes, shape):
        _, H, W, _ = shape
        kernel, pad = conv.kernel_size[0], conv.padding[0]
        even = kernel + kernel % 2
        weight = F.pixel_unshuffle(F.pad(conv.weight, (0, even - kernel) * 2), 2).to(dtypes.frames)
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = _to(conv.bias, dtypes.frames)
        h, w = (H + 2 * pad - kernel) // 2 + 1, (W + 2 * pad - kernel) // 2 + 1
        self.pads = (pad, 2 * (w - 1) + even - W - pad, pad, 2 * (h - 1) + even - H - pad)

    def forward(self, frames):
        """[N, H, W, in] -> [N, h, w, out]."""
        x = F.pixel_unshuffle(F.pad(frames.permute(0, 3, 1, 2), self.pads), 2)
        x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.weight, self.bias).permute(0, 2, 3, 1)

    def backward(self, grad):
        """[N, h, w, out] -> [N, H, W, in]."""
        _, h, w, _ = grad.shape
        kernel = self.weight.shape[2]
        size = (self.weight.shape[1], h + kernel - 1, w + kernel - 1)
        grad = _input_gradient(grad, size, self.weight, (1, 1), (0, 0), (1, 1), 1)
        grad = F.pad(F.pixel_shuffle(grad, 2), [-pad for pad in self.pads])  # a negative pad crops, here or there
        return grad.permute(0, 2, 3, 1)


class ChannelsLast(Form):
    """The convolution itself, on channels-last frames and weights."""

    name = "channels last"

    def __init__(self, conv, dtypes, shape):
        self.weight, self.turned = (
            conv.weight.to(dtype).contiguous(memory_format=torch.channels_last)
            for dtype in (dtypes.frames, dtypes.gradient)
        )
        self.bias = _to(conv.bias, dtypes.frames)
        self.how = (conv.stride, conv.padding, conv.dilation, conv.groups)
        self.size = shape[1:]

    def forward(self, frames):
        """[N, H, W, in] -> [N, h, w, out]."""
        return F.conv2d(frames.permute(0, 3, 1, 2), self.weight, self.bias, *self.how).permute(0, 2, 3, 1)

    def backward(self, grad):
        """[N, h, w, out] -> [N, H, W, in]."""
        H, W, C = self.size
        gradient = _input_gradient(grad.to(self.turned.dtype), (C, H, W), self.turned, *self.how)
        return gradient.permute(0, 2, 3, 1).to(grad.dtype)


def fitting(conv: nn.Conv2d | nn.Linear, shape: torch.Size, dtype: torch.dtype) -> list[tuple[type[Form], str]]:
    """Return the forms that can compute `conv` on frames of `shape` [N, H, W, C], the likeliest first, and why.

    An empty list means that the layer has to compute itself. The order is the fixed rule of deterministic choice. Times
    that made it, in ms for 160 frames in float32, forward and input gradient, on one core of an AVX-512 server: 3x3 on
    64 planes of 8x8 plain 12, Winograd 5.3; 128 of 4x4 10, 4.5; 256 of 2x2 plain 14, dense 10, Winograd 3.8; the stem
    space to depth 30, windows 18; 128 -> 256 with stride 2 on 4x4 plain 7.9, windows 6.8; 256 -> 1024 pointwise on 2x2
    by the BLAS library 7.5, by our own kernel 6.4. On another such server, 64 -> 128 with stride 2 on 8x8 plain 7.5,
    windows 7.7, and 6.4 where one input in ten is a spike: windows and rows leave out zeros.
    """
    _, H, W, C = shape
    if isinstance(conv, nn.Linear):
        return [(Rows, "a linear layer")]
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return []
    if any(n + 2 * p < k for n, p, k in zip((H, W), conv.padding, conv.kernel_size, strict=True)):
        return []  # the layer says what is wrong
    found, plain = [], conv.groups == 1 and conv.dilation == (1, 1)
    compiled = _compiled(conv.weight, dtype)
    if plain and conv.kernel_size == (1, 1) and conv.padding == (0, 0):
        found.append((Pointwise, "1x1 kernel"))
    three = plain and conv.kernel_size == (3, 3) and conv.stride == (1, 1) and conv.padding == (1, 1)
    if three and compiled and H * W >= 4:
        found.append((Winograd, "3x3 kernel, float32"))  # in bfloat16 its sums would be too inexact
    if plain and H * W <= 4:
        found.append((Dense, f"{H}x{W} map"))
    square = plain and all(len({*pair}) == 1 for pair in (conv.kernel_size, conv.padding, conv.stride))
    if square and compiled and (C <= 4 or H * W <= 64):
        found.append((Windows, f"{C} channels" if C <= 4 else f"{H}x{W} map"))
    if square and conv.kernel_size[0] > 3 and conv.stride == (2, 2):
        found.append((SpaceToDepth, "large kernel, stride 2"))
    return [*found, (ChannelsLast, "a convolution like any other")]


class _Rows:
    """A matrix [out, in] that rows are multiplied with: forward by its transpose, backward by itself."""

    def __init__(self, matrix: torch.Tensor, bias: torch.Tensor | None, dtypes: Dtypes):
        self.bias, self.products = _to(bias, dtypes.frames), None
        if _compiled(matrix, dtypes.frames):
            self.forward_product, self.backward = Matrix(matrix.t(), dtypes.products), Matrix(matrix, dtypes.gradient)
            self.products = self.forward_product.dtype
        else:
            matrix = matrix.to(dtypes.frames).contiguous()
            self.forward_product, self.backward = matrix.t().__rmatmul__, matrix.__rmatmul__

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out]."""
        out = self.forward_product(rows)
        return out if self.bias is None else out.add_(self.bias)


def _compiled(weight: torch.Tensor, dtype: torch.dtype) -> bool:
    """Tell whether our own products serve: in float32 on a CPU whose vectors have fused multiply-add."""
    return (
        dtype == torch.float32
        and weight.device.type == "cpu"
        and any(name != "baseline" for name in library.instruction_sets())
    )


def _input_gradient(grad, size, weight, stride, padding, dilation, groups):
    """Return the input gradient [N, *size] of a convolution for a gradient [N, h, w, out], both channels-last."""
    unread = torch.empty((len(grad), *size), dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last)
    how = (list(stride), list(padding), list(dilation), False, [0, 0], groups, [True, False, False])
    grad = grad.permute(0, 3, 1, 2)
    return torch.ops.aten.convolution_backward(grad, unread, weight, None, *how)[0]


def _to(bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    return None if bias is None else bias.to(dtype)
