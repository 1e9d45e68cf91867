"""Convolutions of few channels with large windows, such as a network's stem, and their input gradient."""

from .op import Convolution

__all__ = ["Convolution"]
