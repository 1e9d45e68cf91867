"""Square convolutions with any stride as products with their windows, and their input gradient."""

from .op import Convolution

__all__ = ["Convolution"]
