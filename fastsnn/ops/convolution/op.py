"""A square convolution for weights that do not change, in float32 on a CPU: csrc/cpu/convolution.inl.

Its specification is torch.nn.functional.conv2d, which also stands in where the C++ kernels are missing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .. import library
from ..matrix import LARGEST, integers, is_finite, kernel, panels, usable


class Convolution:
    """Kernels, rearranged once for both directions.

    Args:
        weight: [outputs, inputs, kernel, kernel], float32, on a CPU.
        stride: of both axes, at least 1.
        padding: zeros on each side.
        gradient: type of the products of the input gradient, as in matrix.Matrix: float32 or bfloat16.
        dtype: of the products forward: float32, or int16 for spikes.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        stride: int,
        padding: int,
        gradient: torch.dtype = torch.float32,
        dtype: torch.dtype = torch.float32,
    ):
        self.weight, self.stride, self.padding, self.is_finite = weight, stride, padding, is_finite(weight)
        windows = weight.permute(0, 2, 3, 1).flatten(1)  # [outputs, window]
        self.dtype = dtype = usable(dtype, windows.t(), LARGEST)
        self.kernels = kernel("convolution_forward", dtype), kernel("convolution_backward", gradient)
        self._exact, self._backward = panels(windows.t()), panels(windows, gradient)
        self._forward = integers(windows.t(), LARGEST) if dtype == torch.int16 else self._exact

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """[N, H, W, inputs] -> [N, h, w, outputs], dense."""
        N, H, W, _ = frames.shape
        if library.unavailable():
            out = F.conv2d(frames.permute(0, 3, 1, 2), self.weight, None, self.stride, self.padding)
            return out.permute(0, 2, 3, 1).contiguous()
        out = frames.new_empty(N, *self._out(H, W), self.weight.shape[0])
        self._run(self.kernels[0], frames.contiguous(), self._forward, out, (H, W))
        return out

    def backward(self, grad: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """[N, h, w, outputs] -> the gradient at frames [N, H, W, inputs] of the given size (H, W)."""
        shape = (len(grad), self.weight.shape[1], *size)
        if library.unavailable():
            how = {"stride": self.stride, "padding": self.padding}
            out = torch.nn.grad.conv2d_input(shape, self.weight, grad.permute(0, 3, 1, 2), **how)
            return out.permute(0, 2, 3, 1).contiguous()
        out = grad.new_empty(len(grad), *size, self.weight.shape[1])
        self._run(self.kernels[1], grad.contiguous(), self._backward, out, size)
        return out

    def _out(self, *size):
        return [(n + 2 * self.padding - self.weight.shape[2]) // self.stride + 1 for n in size]

    def _run(self, kernel, source, panels, target, size):
        if not target.numel():
            return
        outputs, inputs, width, _ = self.weight.shape
        numbers = (
            len(source),
            *size,
            inputs,
            outputs,
            *self._out(*size),
            width,
            self.stride,
            self.padding,
            self.is_finite,
        )
        pointers = map(library.address, (source, panels, target, self._exact))
        library.run(kernel, library.ConvolutionArguments(*pointers, *numbers))
