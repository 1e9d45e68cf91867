"""Modules: neurons, encoders, and the passes that a spiking layer is made of."""

from . import in_force
from .encoders import ENCODERS, DirectEncoder, EventFrames, LatencyEncoder, PhaseEncoder, RateEncoder
from .layers import is_watched, over_time, pooled, spiking_layer, stored
from .neurons import IFNode, LIFNode
from .precision import precision

__all__ = [
    "ENCODERS",
    "DirectEncoder",
    "EventFrames",
    "IFNode",
    "LIFNode",
    "LatencyEncoder",
    "PhaseEncoder",
    "RateEncoder",
    "in_force",
    "is_watched",
    "over_time",
    "pooled",
    "precision",
    "spiking_layer",
    "stored",
]
