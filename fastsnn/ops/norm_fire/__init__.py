"""Batch norm with the batch's own statistics, neurons and a junction, as one step forward and one back."""

from .op import Fired, Normed, fire, norm_fire

__all__ = ["Fired", "Normed", "fire", "norm_fire"]
