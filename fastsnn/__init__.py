"""fastsnn: fast, trustworthy robustness studies of spiking neural networks.

The rooms are opened when they are first entered: `import fastsnn` itself loads neither torch nor anything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import analysis, attacks, data, engine, functional, models, nn, sweep, training
    from .models import Classifier

__version__ = "0.1.0"
__all__ = ["Classifier", "analysis", "attacks", "data", "engine", "functional", "models", "nn", "sweep", "training"]


def __getattr__(name: str) -> object:
    """Import a room, or the Classifier, at its first use."""
    if name == "Classifier":
        return importlib.import_module(".models", __name__).Classifier
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
