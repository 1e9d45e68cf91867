"""A 3x3 convolution with padding 1 and stride 1 in fewer products, for weights that do not change, in float32 on a CPU.

It carries no gradient: the input gradient of such a convolution is another one, with turned kernels.
"""

from __future__ import annotations

import torch

from .. import library
from ..matrix import panels
from . import reference


class Filter:
    """3x3 kernels, transformed once; call it with frames.

    Args:
        weight: kernels [outputs, inputs, 3, 3], float32, on a CPU.
        tile: 4 for maps of any size, 2 for maps of 2x2.
    """

    def __init__(self, weight: torch.Tensor, tile: int):
        planes = reference.filters(weight, tile)
        self.tile, self.outputs = tile, weight.shape[0]
        if not library.unavailable():
            planes = panels(planes)
        self.planes = planes

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """[N, H, W, inputs] -> [N, H, W, outputs], dense."""
        if self.planes.dim() == 3:
            return reference.convolution(frames, self.planes, self.tile)
        N, H, W, C = frames.shape
        out = torch.empty(N, H, W, self.outputs)
        tiles = (-(-H // self.tile), -(-W // self.tile))
        frames = frames.contiguous()
        if out.numel():
            pointers = map(library.address, (frames, self.planes, out))
            sizes = (N * tiles[0] * tiles[1], H, W, C, self.outputs, *tiles)
            library.run("winograd", library.WinogradArguments(*pointers, *sizes, self.tile))
        return out
