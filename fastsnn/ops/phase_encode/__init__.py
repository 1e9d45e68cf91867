"""Phase coding of images: the bits of a pixel as spikes, most significant first."""

from .op import phase_encode

__all__ = ["phase_encode"]
