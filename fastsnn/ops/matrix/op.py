"""A product with a matrix that does not change, in float32 on a CPU: csrc/cpu/matrix.inl.

Its specification is torch's own product, which also stands in where the C++ kernels are missing. Against that (MKL or
OpenBLAS): each element is one sum in one order, whatever the number of rows or threads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .. import library

PANEL = 32  # columns that the kernels take together


class Matrix:
    """A matrix [inputs, outputs], rearranged once; call it with rows."""

    def __init__(self, matrix: torch.Tensor):
        self.inputs, self.outputs = matrix.shape
        self.matrix = matrix if library.unavailable() else panels(matrix)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """[rows, inputs] -> [rows, outputs], dense."""
        if self.matrix.dim() == 2:
            return rows @ self.matrix
        rows, out = rows.contiguous(), torch.empty(len(rows), self.outputs)
        if out.numel():
            pointers = map(library.address, (rows, self.matrix, out))
            library.run("matrix", library.MatrixArguments(*pointers, len(rows), self.inputs, self.outputs))
        return out


def panels(matrix: torch.Tensor) -> torch.Tensor:
    """[..., inputs, columns] -> [..., columns / 32, inputs, 32], the last panel filled up with zeros."""
    padded = F.pad(matrix, (0, -matrix.shape[-1] % PANEL))
    return padded.unflatten(-1, (-1, PANEL)).transpose(-3, -2).contiguous()
