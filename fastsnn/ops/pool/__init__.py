"""Max and average pools over the frames of every step, keeping a byte for each output at most."""

from .op import Window, fits, pool

__all__ = ["Window", "fits", "pool"]
