"""Modules: neurons, encoders, and the passes that a spiking layer is made of."""

from .encoders import PhaseEncoder
from .layers import is_watched, norm_fire, over_time, product, stored
from .neurons import IFNode, LIFNode
from .precision import precision

__all__ = [
    "IFNode",
    "LIFNode",
    "PhaseEncoder",
    "is_watched",
    "norm_fire",
    "over_time",
    "precision",
    "product",
    "stored",
]
