"""fastsnn: fast, trustworthy robustness studies of spiking neural networks."""

from . import functional

__version__ = "0.1.0"
__all__ = ["functional"]
