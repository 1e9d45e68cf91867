"""Verdicts on masked gradients in a sweep's ledger: tables of their own, made when the first verdict is written.

verdicts  a network, what it was judged by, and the conclusion
checks    a verdict's rows: name, what was seen, and "pass", "fail" or "not run"
"""

from __future__ import annotations

import json

from ..analysis import Verdict
from .ledger import Ledger

_TABLES = (
    """CREATE TABLE IF NOT EXISTS verdicts (
    id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, run INTEGER NOT NULL REFERENCES runs,
    network INTEGER NOT NULL REFERENCES networks, eps REAL NOT NULL, alpha REAL NOT NULL, steps INTEGER NOT NULL,
    images INTEGER NOT NULL, pgd REAL NOT NULL, worst REAL NOT NULL, conclusion TEXT NOT NULL, seconds REAL NOT NULL,
    determined_by TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS checks (
    verdict INTEGER NOT NULL REFERENCES verdicts, number INTEGER NOT NULL, name TEXT NOT NULL, seen TEXT NOT NULL,
    result TEXT NOT NULL, PRIMARY KEY (verdict, number)) WITHOUT ROWID""",
)


class JudgedLedger(Ledger):
    """A ledger that also holds verdicts; one without any is read as such."""

    def weights_hash(self, network: int) -> str:
        """Return the hash of a network's weights."""
        ((found,),) = self._read("SELECT weights FROM networks WHERE id = ?", network)
        return found

    def has_verdict(self, verdict_hash: str) -> bool:
        """Tell whether a verdict is there."""
        return self._is_judged() and bool(self._read("SELECT 1 FROM verdicts WHERE hash = ?", verdict_hash))

    def add_verdict(
        self, run: int, network: int, verdict_hash: str, determined_by: dict, found: Verdict, seconds: float
    ) -> None:
        """Write a verdict with its checks: all of it or, where anything fails, nothing.

        Args:
            run: by which run.
            network: its number in the ledger.
            verdict_hash: of everything that determined the verdict.
            determined_by: that.
            found: the verdict.
            seconds: it took.

        Raises:
            LedgerError: the disk is full, or the file cannot be written to.
        """
        how = [determined_by[name] for name in ("eps", "alpha", "steps", "images")]
        values = (verdict_hash, run, network, *how, found.pgd, found.worst, found.conclusion, seconds)
        with self._transaction():
            for table in _TABLES:
                self._connection.execute(table)
            marks = ", ".join("?" * (len(values) + 1))
            line = (*values, json.dumps(determined_by, sort_keys=True))
            number = self._connection.execute(f"INSERT INTO verdicts VALUES (NULL, {marks})", line).lastrowid
            lines = [(number, i, *row) for i, row in enumerate(found)]
            self._connection.executemany("INSERT INTO checks VALUES (?, ?, ?, ?, ?)", lines)

    def verdicts(self) -> list[dict]:
        """Return the verdicts, network by network, each with its columns and its "checks": rows of check, seen, result.

        Budgets are in 1/255, shares from 0 to 1.
        """
        if not self._is_judged():
            return []
        query = """SELECT verdicts.* FROM verdicts JOIN networks ON networks.id = verdicts.network
            ORDER BY data, model, pool, seed, networks.id, verdicts.id"""
        checks = "SELECT name, seen, result FROM checks WHERE verdict = ? ORDER BY number"
        return [dict(row) | {"checks": list(map(tuple, self._read(checks, row["id"])))} for row in self._read(query)]

    def _is_judged(self) -> bool:
        return bool(self._read("SELECT 1 FROM sqlite_master WHERE name = 'verdicts'"))
