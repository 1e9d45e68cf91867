"""Products with a matrix that does not change, the same bits for any number of rows and threads."""

from .op import LARGEST, PANEL, Matrix, integers, is_finite, kernel, panels, usable

__all__ = ["LARGEST", "PANEL", "Matrix", "integers", "is_finite", "kernel", "panels", "usable"]
