"""Multistep integrate-and-fire, with an affine in front and a residual junction behind."""

from . import reference
from .neuron import JUNCTIONS, SURROGATES, Neuron, checked
from .op import backward, forward, integrate_fire

__all__ = ["JUNCTIONS", "SURROGATES", "Neuron", "backward", "checked", "forward", "integrate_fire", "reference"]
