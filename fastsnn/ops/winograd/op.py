"""A 3x3 convolution with padding 1 and stride 1 in fewer products, for weights that do not change, in float32 on a CPU.

It carries no gradient: the input gradient of such a convolution is another one, with turned kernels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .. import library
from ..matrix import PANEL, integers, kernel, usable
from . import reference

LARGEST_IN_TILES = 1023  # integers that the int16 kernel takes for a number of V; spikes give up to 98


class Filter:
    """3x3 kernels, transformed once; call it with frames.

    Args:
        weight: kernels [outputs, inputs, 3, 3], float32, on a CPU.
        tile: 4 for maps of any size, 2 for maps of 2x2.
        turned: filter with the kernels turned round and outputs and inputs exchanged: the input gradient.
        dtype: of the products, as in matrix.Matrix; the transforms are float32. In bfloat16 the rms error is 1 to 2 %
            of the output's spread. In int16 frames of spikes are exact and weights are rounded as there: 2e-4 of
            it with 64 channels, 4e-4 with 512.
    """

    def __init__(self, weight: torch.Tensor, tile: int, turned: bool = False, dtype: torch.dtype = torch.float32):
        self.tile, self.outputs, self.exact = tile, weight.shape[1 if turned else 0], None
        if library.unavailable() or weight.dtype != torch.float32:
            self.planes = reference.filters(weight.flip(2, 3).transpose(0, 1) if turned else weight, tile)
        else:
            self.planes = _panels(weight, tile, turned)
        if dtype == torch.int16:
            U = reference.filters(weight.flip(2, 3).transpose(0, 1) if turned else weight, tile)
            dtype = usable(dtype, U, LARGEST_IN_TILES)
            if dtype == torch.int16:
                self.planes, self.exact = integers(U, LARGEST_IN_TILES), self.planes
        self.kernel, self.dtype = kernel("winograd", dtype), dtype
        if dtype == torch.bfloat16:
            pairs = F.pad(self.planes, (0, 0, 0, self.planes.shape[-2] % 2)).unflatten(-2, (-1, 2))
            self.planes = pairs.transpose(-2, -1).bfloat16().contiguous()

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """[N, H, W, inputs] -> [N, H, W, outputs], dense."""
        if self.planes.dim() == 3 and self.exact is None:
            return reference.convolution(frames, self.planes, self.tile)
        N, H, W, C = frames.shape
        out = frames.new_empty(N, H, W, self.outputs)
        tiles = (-(-H // self.tile), -(-W // self.tile))
        frames = frames.contiguous()
        if out.numel():
            pointers = map(library.address, (frames, self.planes, out, self.exact))
            sizes = (N * tiles[0] * tiles[1], H, W, C, self.outputs, *tiles)
            library.run(self.kernel, library.WinogradArguments(*pointers, *sizes, self.tile))
        return out


def weight_gradient(frames: torch.Tensor, grad: torch.Tensor, tile: int) -> torch.Tensor:
    """Return the gradient [outputs, inputs, 3, 3] at the kernels, in as few products as the convolution itself.

    Args:
        frames: the convolution's input [N, H, W, inputs], float32, on a CPU.
        grad: the gradient at its output [N, H, W, outputs].
        tile: as in Filter.
    """
    if library.unavailable():
        return reference.weight_gradient(frames, grad, tile)
    x, g = _planes(frames, tile, False), _planes(grad, tile, True)
    return reference.unfilter(torch.bmm(x.transpose(1, 2), g), tile)


def _panels(weight, tile, turned):
    """Return what `panels(reference.filters(weight, tile))` would, without the copies: training needs it every step."""
    if weight.stride(2) != 3 * weight.stride(3):
        weight = weight.contiguous()
    outputs, inputs = weight.shape[:2]
    strides, tap, first = weight.stride()[:2], weight.stride(3), weight.data_ptr()
    if turned:
        outputs, inputs, strides = inputs, outputs, strides[::-1]
        tap, first = -tap, first + 8 * tap * weight.element_size()
    products = len(reference.MATRICES[tile].filters)
    planes = weight.new_empty(products**2, -(-outputs // PANEL), inputs, PANEL)
    arguments = library.WinogradFiltersArguments(first, planes.data_ptr(), outputs, inputs, *strides, tap, tile)
    library.run("winograd_filters", arguments)
    return planes


def _planes(frames, tile, is_gradient):
    N, H, W, C = frames.shape
    tiles = (-(-H // tile), -(-W // tile))
    rows, products = N * tiles[0] * tiles[1], len(reference.MATRICES[tile].filters)
    frames, out = frames.contiguous(), frames.new_empty(products**2, rows, C)
    if out.numel():
        pointers = map(library.address, (frames, out))
        library.run(
            "winograd_planes", library.WinogradPlanesArguments(*pointers, rows, H, W, C, *tiles, tile, is_gradient)
        )
    return out
