"""A product with a matrix that does not change, in float32 on a CPU: csrc/cpu/matrix.inl.

Its specification is torch's own product, which also stands in where the C++ kernels are missing. Against that (MKL or
OpenBLAS): each element is one sum in one order, whatever the number of rows or threads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .. import library

PANEL = 32  # columns that the kernels take together
LARGEST = 127  # integers that an int16 kernel takes for an input


class Matrix:
    """A matrix [inputs, outputs], rearranged once; call it with rows.

    Args:
        matrix: float32, on a CPU.
        dtype: of the products: float32; bfloat16, which rounds both sides (sums are float32 either way); or int16, for
            rows of spikes: weights are rounded to 16 bits in a unit of each column's, sums are exact. A row with
            something else than integers up to 127 is multiplied in float32, as all are by a matrix that 16 bits do not
            fit (see `usable`). bfloat16 and int16 take a processor that multiplies them, see library.has_bf16.
    """

    def __init__(self, matrix: torch.Tensor, dtype: torch.dtype = torch.float32):
        self.inputs, self.outputs = matrix.shape
        self.is_finite = is_finite(matrix)
        self.dtype = dtype = usable(dtype, matrix, LARGEST)
        self.kernel, self.exact = kernel("matrix", dtype), None
        if library.unavailable():
            self.matrix = matrix
        elif dtype == torch.int16:
            self.matrix, self.exact = integers(matrix, LARGEST), panels(matrix)
        else:
            self.matrix = panels(matrix, dtype)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """[rows, inputs] -> [rows, outputs], float32, dense."""
        if library.unavailable():
            return rows @ self.matrix
        rows, out = rows.contiguous(), rows.new_empty(len(rows), self.outputs)
        if out.numel():
            pointers = map(library.address, (rows, self.matrix, out, self.exact))
            sizes = (len(rows), self.inputs, self.outputs)
            library.run(self.kernel, library.MatrixArguments(*pointers, *sizes, self.is_finite))
        return out


def kernel(name: str, dtype: torch.dtype) -> str:
    """Return the kernel's name for products of `dtype`, or raise a RuntimeError if the processor has none."""
    if dtype == torch.float32:
        return name
    if dtype not in (torch.bfloat16, torch.int16) or not library.has_bf16():
        raise RuntimeError(f"this processor does not multiply {dtype}; use float32.")
    return f"{name}_int16" if dtype == torch.int16 else f"{name}_bf16"


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


def usable(dtype: torch.dtype, matrix: torch.Tensor, largest: int) -> torch.dtype:
    """Return `dtype`, or float32 for int16 where a column's unit is above a hundredth of its median weight.

    bfloat16 rounds as coarsely. So it is where a weight is 300 times the others, most are 0, or one is not finite.
    """
    if dtype != torch.int16:
        return dtype
    if not matrix.numel():
        return torch.float32
    unit, median = _units(matrix, largest), matrix.abs().median(-2).values
    fine = (unit <= 1e-2 * median) & (unit > torch.finfo(torch.float32).tiny)
    return torch.int16 if bool((fine | (unit == 0)).all()) else torch.float32


def integers(matrix: torch.Tensor, largest: int) -> torch.Tensor:
    """Return panels of int16 [..., columns / 32, inputs * 32 + 64]: pairs of inputs as in bfloat16, then units as bits.

    The unit of a column is the least for which its weights fit 16 bits and its sums 32, with inputs up to `largest`.
    """
    matrix = F.pad(matrix.double(), (0, -matrix.shape[-1] % PANEL, 0, matrix.shape[-2] % 2))
    unit = _units(matrix, largest)
    unit = torch.where(unit > 0, unit, 1.0).float()
    whole = (matrix / unit.unsqueeze(-2).double()).round().clamp(-32767, 32767).to(torch.int16)
    pairs = whole.unflatten(-1, (-1, PANEL)).transpose(-3, -2).unflatten(-2, (-1, 2)).transpose(-2, -1).flatten(-3)
    return torch.cat([pairs, unit.unflatten(-1, (-1, PANEL)).contiguous().view(torch.int16)], -1)


def _units(matrix: torch.Tensor, largest: int) -> torch.Tensor:
    size, inputs = matrix.double().abs(), matrix.shape[-2] + matrix.shape[-2] % 2
    most_in_a_sum = (2**31 - 1) / largest - inputs  # rounded weights are up to 1/2 larger
    return torch.maximum(size.amax(-2) / 32767, size.sum(-2) / most_in_a_sum)
