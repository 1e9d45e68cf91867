"""Products with a matrix that does not change, the same bits for any number of rows and threads."""

from .op import PANEL, Matrix, is_finite, kernel, panels

__all__ = ["PANEL", "Matrix", "is_finite", "kernel", "panels"]
