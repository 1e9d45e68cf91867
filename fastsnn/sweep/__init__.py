"""Sweeps: networks x attacks x budgets and more, with a cache of trained weights and a ledger of what was found."""

from .engines import EngineError
from .folder import default_out, prepare, sweep
from .ledger import Ledger, LedgerError
from .plan import Cell, Network, Settings
from .run import Done, run

__all__ = [
    "Cell",
    "Done",
    "EngineError",
    "Ledger",
    "LedgerError",
    "Network",
    "Settings",
    "default_out",
    "prepare",
    "run",
    "sweep",
]
