"""Modules: neurons, encoders, and the passes that a spiking layer is made of."""

from .encoders import PhaseEncoder
from .layers import norm_fire, over_time, product, stored
from .neurons import IFNode, LIFNode
from .precision import precision

__all__ = ["IFNode", "LIFNode", "PhaseEncoder", "norm_fire", "over_time", "precision", "product", "stored"]
