"""Multistep integrate-and-fire, with an affine in front and a residual junction behind."""

from . import reference
from .counted import backward_counted
from .neuron import JUNCTIONS, SURROGATES, Neuron, checked
from .op import backward, forward, integrate_fire

__all__ = [
    "JUNCTIONS",
    "SURROGATES",
    "Neuron",
    "backward",
    "backward_counted",
    "checked",
    "forward",
    "integrate_fire",
    "reference",
]
