"""Training: the plain loop, defences, and how well what it made does."""

from .defences import DEFENCES, NO_DEFENCE, defence_of, described, neurons_for
from .hire import HIRE
from .loop import OPTIMIZERS, SCHEDULES, Batch, Trainer, count_correct, evaluate, train
from .ranks import Ranks
from .snn_rat import SNNRAT
from .sparse_gradient import SparseGradient

__all__ = [
    "DEFENCES",
    "HIRE",
    "NO_DEFENCE",
    "OPTIMIZERS",
    "SCHEDULES",
    "SNNRAT",
    "Batch",
    "Ranks",
    "SparseGradient",
    "Trainer",
    "count_correct",
    "defence_of",
    "described",
    "evaluate",
    "neurons_for",
    "train",
]
