"""Which cells of a ledger are a plan's own: those that its run asks for.

A folder may hold other plans' cells that look like them and differ in their training, their images, or torch.
"""

from __future__ import annotations

import sqlite3

from .ledger import Ledger


class OwnCells(Ledger):
    """A ledger that notes what a run asks it for: first a network's weights, then whether it has each of its cells."""

    def __init__(self, *opened):
        super().__init__(*opened)
        self._asked: list[list[str]] = [[]]  # by network

    def weights_of(self, description: dict) -> str | None:
        """See Ledger.weights_of; begins the cells of another network."""
        self._asked.append([])
        return super().weights_of(description)

    def has(self, cell_hash: str) -> bool:
        """See Ledger.has; notes the cell."""
        self._asked[-1].append(cell_hash)
        return super().has(cell_hash)

    def own(self) -> list[sqlite3.Row]:
        """Return the results that were asked for and are there; of a network's several weights those asked for last."""
        there = self.cells([one for some in self._asked for one in some])
        own = set()
        for some in self._asked:
            found = [there[one] for one in some if one in there]
            own |= {cell for cell, network in found if network == found[-1][1]}
        return [row for row in self.results() if row["cell"] in own]
