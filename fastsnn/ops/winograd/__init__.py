"""3x3 convolutions in fewer products (Winograd 1980; Lavin and Gray 2016)."""

from .op import Filter, weight_gradient

__all__ = ["Filter", "weight_gradient"]
