"""Training: the plain loop, and how well what it made does."""

from .loop import SCHEDULES, Batch, count_correct, evaluate, train

__all__ = ["SCHEDULES", "Batch", "count_correct", "evaluate", "train"]
