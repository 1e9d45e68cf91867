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
    """A matrix [inputs, outputs], rearranged once; call it with rows.

    Args:
        matrix: float32, on a CPU.
        dtype: of the products: float32, or bfloat16 to round both sides (sums are float32 either way); that takes a
            processor that multiplies bfloat16, see library.has_bf16.
    """

    def __init__(self, matrix: torch.Tensor, dtype: torch.dtype = torch.float32):
        self.inputs, self.outputs = matrix.shape
        self.kernel, self.is_finite = kernel("matrix", dtype), is_finite(matrix)
        self.matrix = matrix if library.unavailable() else panels(matrix, dtype)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """[rows, inputs] -> [rows, outputs], float32, dense."""
        if self.matrix.dim() == 2:
            return rows @ self.matrix
        rows, out = rows.contiguous(), rows.new_empty(len(rows), self.outputs)
        if out.numel():
            pointers = map(library.address, (rows, self.matrix, out))
            sizes = (len(rows), self.inputs, self.outputs)
            library.run(self.kernel, library.MatrixArguments(*pointers, *sizes, self.is_finite))
        return out


def kernel(name: str, dtype: torch.dtype) -> str:
    """Return the kernel's name for products of `dtype`, or raise a RuntimeError if the processor has none."""
    if dtype == torch.float32:
        return name
    if dtype != torch.bfloat16 or not library.has_bf16():
        raise RuntimeError(f"this processor does not multiply {dtype}; use float32.")
    return f"{name}_bf16"


def is_finite(weight: torch.Tensor) -> bool:
    """Tell whether no weight is infinite or NaN; only then 0 times a weight is 0. In doubt False, which is slower."""
    return bool(torch.isfinite(weight.sum()))


def panels(matrix: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """[..., inputs, columns] -> [..., columns / 32, inputs, 32], the last panel filled up with zeros.

    In bfloat16 pairs of inputs lie together: [..., columns / 32, inputs / 2, 32, 2].
    """
    odd = matrix.shape[-2] % 2 if dtype == torch.bfloat16 else 0
    padded = F.pad(matrix, (0, -matrix.shape[-1] % PANEL, 0, odd))
    result = padded.unflatten(-1, (-1, PANEL)).transpose(-3, -2)
    if dtype == torch.bfloat16:
        result = result.unflatten(-2, (-1, 2)).transpose(-2, -1).bfloat16()
    return result.contiguous()
