"""Sweeps: models x poolings x attacks x eps, with a cache of trained weights and a folder of results."""

from .folder import default_out, prepare, sweep
from .plan import Cell, Settings, Stage, stages
from .run import Done, Row, run

__all__ = ["Cell", "Done", "Row", "Settings", "Stage", "default_out", "prepare", "run", "stages", "sweep"]
