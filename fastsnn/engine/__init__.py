"""The attack engine: the fastest form of a network with the same answers."""

from .prepared import Layer, Prepared, prepare, remembered

__all__ = ["Layer", "Prepared", "prepare", "remembered"]
