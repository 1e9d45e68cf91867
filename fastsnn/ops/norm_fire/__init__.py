"""Batch norm with the batch's own statistics, neurons and a junction, as one step forward and one back."""

from .op import Fired, fire, norm_fire

__all__ = ["Fired", "fire", "norm_fire"]
