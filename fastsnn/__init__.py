"""fastsnn: fast, trustworthy robustness studies of spiking neural networks."""

from . import attacks, engine, functional, models, nn
from .models import Classifier

__version__ = "0.1.0"
__all__ = ["Classifier", "attacks", "engine", "functional", "models", "nn"]
