"""Modules: neurons, encoders, and the passes that a spiking layer is made of."""

from . import in_force
from .chain import Chain, chained
from .dropout import Dropout
from .encoders import ENCODERS, DirectEncoder, EventFrames, LatencyEncoder, PhaseEncoder, RateEncoder
from .layers import Junction, is_watched, norm_fire, over_time, pooled, spiking_layer, stored
from .learned import LearnedNode, learn_neurons, learned_neurons
from .neurons import IFNode, LIFNode, seen_through
from .normalize import Normalize, normalize
from .precision import precision

__all__ = [
    "ENCODERS",
    "Chain",
    "DirectEncoder",
    "Dropout",
    "EventFrames",
    "IFNode",
    "Junction",
    "LIFNode",
    "LatencyEncoder",
    "LearnedNode",
    "Normalize",
    "PhaseEncoder",
    "RateEncoder",
    "chained",
    "in_force",
    "is_watched",
    "learn_neurons",
    "learned_neurons",
    "norm_fire",
    "normalize",
    "over_time",
    "pooled",
    "precision",
    "seen_through",
    "spiking_layer",
    "stored",
]
