"""A sweep's memory: one SQLite file with every cell and, for every image of it, what became of it.

A cell is written in one transaction, so it is there whole or not at all, whoever is killed and whenever. It is found
again by a hash of everything that determines its result.

    runs      a line for each time somebody worked on it: settings, versions, machine
    networks  what was attacked: how it was trained, and a hash of its weights
    cells     a network x attack x bn x surrogate x steps x restarts x eps, and how many images stayed right
    samples   a cell's images: right without and under attack, whether the gradient was zero, the size of the change
    plans     which cells the plan of a finished run asked for, whichever run computed them
    verdicts  whether a network's gradient is masked, where somebody asked; see judged.py
    results   a view for people and pandas: a line per cell, with its network and all that it was made with
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from .plan import Cell, Network

FILE = "ledger.sqlite"
VERSION = 1  # of the tables below, kept in the file as SQLite's user_version
_TABLES = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, finished TEXT, settings TEXT NOT NULL, versions TEXT NOT NULL,
    machine TEXT NOT NULL);
CREATE TABLE networks (
    id INTEGER PRIMARY KEY, data TEXT NOT NULL, model TEXT NOT NULL, pool TEXT NOT NULL, seed INTEGER NOT NULL,
    width INTEGER NOT NULL, T INTEGER NOT NULL, K INTEGER NOT NULL, description TEXT NOT NULL, weights TEXT NOT NULL,
    UNIQUE (description, weights));
CREATE TABLE cells (
    id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, run INTEGER NOT NULL REFERENCES runs,
    network INTEGER NOT NULL REFERENCES networks, attack TEXT NOT NULL, bn TEXT NOT NULL, surrogate TEXT NOT NULL,
    steps INTEGER NOT NULL, restarts INTEGER NOT NULL, eps REAL NOT NULL, alpha REAL, precision TEXT NOT NULL,
    images INTEGER NOT NULL, correct INTEGER NOT NULL, clean_correct INTEGER NOT NULL,
    zero_gradients INTEGER NOT NULL, seconds REAL NOT NULL, determined_by TEXT NOT NULL);
CREATE TABLE samples (
    cell INTEGER NOT NULL REFERENCES cells, image INTEGER NOT NULL, clean_correct INTEGER NOT NULL,
    correct INTEGER NOT NULL, zero_gradient INTEGER NOT NULL, linf REAL NOT NULL,
    PRIMARY KEY (cell, image)) WITHOUT ROWID;
"""
_PLANS = """CREATE TABLE IF NOT EXISTS plans (
    run INTEGER NOT NULL REFERENCES runs, cell INTEGER NOT NULL REFERENCES cells, PRIMARY KEY (run, cell))
    WITHOUT ROWID;"""
_SELECT = """SELECT
    cells.id AS cell, networks.id AS network, run, data, model, width, pool, seed, T, K,
    coalesce(json_extract(description, '$.training.coding'), 'phase') AS coding,
    coalesce(json_extract(description, '$.training.defence'), 'none') AS defence,
    coalesce(json_extract(description, '$.stem'), CASE WHEN model LIKE '%resnet%' THEN 'imagenet' END) AS stem,
    json_extract(description, '$.training.frame_size') AS frame_size,
    json_extract(description, '$.training.epochs') AS epochs,
    json_extract(description, '$.training.batch_size') AS train_batch_size,
    json_extract(description, '$.training.lr') AS lr,
    json_extract(description, '$.training.schedule') AS schedule,
    json_extract(description, '$.training.weight_decay') AS weight_decay,
    coalesce(json_extract(description, '$.training.optimizer'), 'adam') AS optimizer,
    CASE WHEN json_extract(description, '$.training.flips') THEN 'yes' ELSE 'no' END AS flips,
    coalesce(json_extract(description, '$.training.train_precision'), 'fp32') AS train_precision,
    json_extract(description, '$.threads') AS threads,
    attack, eps AS eps_255, steps, restarts, alpha, bn, surrogate, precision,
    json_extract(determined_by, '$.batch_size') AS batch_size,
    json_extract(determined_by, '$.torch') AS torch,
    json_extract(determined_by, '$.device') AS device,
    json_extract(determined_by, '$.kernels[0]') AS kernels,
    json_extract(determined_by, '$.recipe') AS recipe,
    images, correct, 100.0 * correct / images AS accuracy, 100.0 * clean_correct / images AS clean_accuracy,
    zero_gradients, seconds
    FROM cells JOIN networks ON networks.id = cells.network"""
_ORDER = """
    ORDER BY data, model, pool, seed, coding, defence, attack, bn, surrogate, steps, restarts, eps, alpha, cells.id"""
_RESULTS = _SELECT + _ORDER
_VIEW = f"{_PLANS} DROP VIEW IF EXISTS results; CREATE VIEW results AS {_RESULTS};"  # in every file written to


class LedgerError(Exception):
    """A ledger that cannot be used; the message is a sentence with its path, and says what to do."""


@dataclass(frozen=True)
class Outcome:
    """What became of a cell's images, arrays [images] in their order.

    Attributes:
        clean_correct: bool, whether each is classified rightly without an attack.
        correct: bool, and under it.
        zero_gradient: bool, whether the gradient at the clean image is exactly zero, so that no step could be taken.
        linf: float32, the largest change of any element of the encoded input.
    """

    clean_correct: numpy.ndarray
    correct: numpy.ndarray
    zero_gradient: numpy.ndarray
    linf: numpy.ndarray


class Ledger:
    """The ledger of a folder. Use it as a context manager, or close it."""

    def __init__(self, file: Path, connection: sqlite3.Connection, lock=None):
        self.file, self._connection, self._lock = file, connection, lock
        connection.row_factory = sqlite3.Row

    @classmethod
    def write(cls, folder: Path) -> Ledger:
        """Open a folder's ledger for one run, or begin it.

        Raises:
            LedgerError: another run is at work on it, it is of another version, damaged, or cannot be written to.
        """
        import filelock

        file = folder / FILE
        lock = filelock.FileLock(folder / f".{FILE}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise LedgerError(
                f"{folder} is being worked on by another run; wait for it, or name another --out"
            ) from None
        except OSError as error:
            raise LedgerError(f"{folder} cannot be written to ({error.strerror}); name another --out") from error
        try:
            with _told(file):
                connection = sqlite3.connect(file, isolation_level=None)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")  # a cell that is written survives a power cut
                _begin_or_check(connection, file)
        except BaseException:
            lock.release()
            raise
        return cls(file, connection, lock)

    @classmethod
    def read(cls, folder: Path) -> Ledger:
        """Open a folder's ledger to look at it, also while a run writes to it.

        Raises:
            LedgerError: there is none, it is of another version or damaged, or a part of it lies in SQLite's log and
                cannot be read where nobody can write.
        """
        file = folder / FILE
        if not file.is_file():
            raise LedgerError(f"{file} does not exist: {folder} is not the folder of a sweep")
        with _told(file):
            connection = _connected_to_read(file)
            _check_version(connection, file)
        return cls(file, connection)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Leave the file to others."""
        self._connection.close()
        if self._lock is not None:
            self._lock.release()

    def begin_run(self, settings: dict, versions: dict, machine: dict) -> int:
        """Note that a run begins; return its number."""
        values = (_now(), json.dumps(settings), json.dumps(versions), json.dumps(machine))
        with _told(self.file):
            insert = "INSERT INTO runs (started, settings, versions, machine) VALUES (?, ?, ?, ?)"
            return self._connection.execute(insert, values).lastrowid

    def finish_run(self, run: int, cells: Sequence[int]) -> None:
        """Note that a run came to its end, and which cells its plan asked for."""
        with self._transaction():
            self._connection.executemany("INSERT INTO plans VALUES (?, ?)", [(run, cell) for cell in cells])
            self._connection.execute("UPDATE runs SET finished = ? WHERE id = ?", (_now(), run))

    def weights_of(self, description: dict) -> str | None:
        """Return the hash of the weights that a training so described gave, None if no cell was attacked on them."""
        query = "SELECT weights FROM networks WHERE description = ? ORDER BY id DESC LIMIT 1"
        rows = self._read(query, _canonical(description))
        return rows[0]["weights"] if rows else None

    def has(self, cell_hash: str) -> bool:
        """Tell whether a cell is there."""
        return bool(self._read("SELECT 1 FROM cells WHERE hash = ?", cell_hash))

    def add(
        self,
        run: int,
        network: Network,
        training: dict,
        weights: str,
        cells: Sequence[tuple[Cell, str, dict]],
        outcomes: Sequence[Outcome],
        seconds: float,
    ) -> None:
        """Write cells with their images: all of them or, where anything fails, none.

        Args:
            run: by which run.
            network: the cells'.
            training: everything that determined its weights.
            weights: their hash.
            cells: each with its hash, and everything that the hash is of.
            outcomes: each cell's.
            seconds: each cell's share of the time.

        Raises:
            LedgerError: the disk is full, or the file cannot be written to.
        """
        with self._transaction():
            network_id = self._network(network, training, weights)
            for (cell, cell_hash, determined_by), outcome in zip(cells, outcomes, strict=True):
                self._cell(run, network_id, cell, cell_hash, determined_by, outcome, seconds)

    def results(self) -> list[sqlite3.Row]:
        """Return the lines of the view `results`, in its order."""
        with _told(self.file):
            return self._connection.execute(_RESULTS).fetchall()  # the file's own view may be older

    def results_of_plan(self) -> list[sqlite3.Row]:
        """Return those of the plan that was finished last; the folder may hold other plans' cells beside them."""
        its = " WHERE cells.id IN (SELECT cell FROM plans WHERE run = (SELECT max(run) FROM plans))"
        with _told(self.file):
            return self._connection.execute(_SELECT + its + _ORDER).fetchall()

    def cells(self, hashes: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return for each of these hashes that is there the numbers of its cell and its network."""
        query = "SELECT hash, id, network FROM cells WHERE hash IN (SELECT value FROM json_each(?))"
        with _told(self.file):
            rows = self._connection.execute(query, (json.dumps(hashes),))
            return {row["hash"]: (row["id"], row["network"]) for row in rows}

    def runs(self) -> list[dict]:
        """Return the runs, with settings, versions and machine as they were."""
        rows = map(dict, self._read("SELECT * FROM runs ORDER BY id"))
        return [row | {name: json.loads(row[name]) for name in ("settings", "versions", "machine")} for row in rows]

    def description(self, network: int) -> dict:
        """Return everything that determined a network's weights."""
        (row,) = self._read("SELECT description FROM networks WHERE id = ?", network)
        return json.loads(row["description"])

    def samples(self, cell: int) -> list[tuple[int, int, int, int, float]]:
        """Return a cell's lines: image, clean_correct, correct, zero_gradient, linf."""
        query = "SELECT image, clean_correct, correct, zero_gradient, linf FROM samples WHERE cell = ? ORDER BY image"
        return list(map(tuple, self._read(query, cell)))

    def worst_case(self, cells: Sequence[int]) -> tuple[int, int]:
        """Return how many images stay right under each of several cells of one network, and how many images there are.

        That is the mean over samples of the minimum over attacks (Croce & Hein 2020), not the minimum over attacks of
        the mean. Images that not all of the cells attacked do not count.
        """
        marks = ", ".join("?" * len(cells))
        each = f"SELECT min(correct) AS least FROM samples WHERE cell IN ({marks}) GROUP BY image HAVING count(*) = ?"
        query = f"SELECT total(least), count(*) FROM ({each})"
        ((correct, images),) = self._read(query, *cells, len(cells))
        return int(correct), images

    def _read(self, query: str, *values) -> list[sqlite3.Row]:
        with _told(self.file):
            return self._connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _told(self.file):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:  # also Ctrl-C
                if self._connection.in_transaction:  # a full disk may have ended it already
                    self._connection.execute("ROLLBACK")
                raise

    def _network(self, network: Network, training: dict, weights: str) -> int:
        description = _canonical(training)
        names = (network.data, network.model, network.pool, network.seed, training["width"])
        code = (training["training"]["T"], training["training"]["K"])
        insert = "INSERT OR IGNORE INTO networks VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._connection.execute(insert, (*names, *code, description, weights))
        query = "SELECT id FROM networks WHERE description = ? AND weights = ?"
        return self._connection.execute(query, (description, weights)).fetchone()["id"]

    def _cell(self, run, network_id, cell, cell_hash, determined_by, outcome, seconds) -> None:
        columns = (outcome.clean_correct, outcome.correct, outcome.zero_gradient)
        clean, correct, zero = (column.astype(int) for column in columns)
        alpha = determined_by["alpha"]
        how = (cell.attack, cell.bn, cell.surrogate, cell.steps, cell.restarts, cell.eps, alpha)
        counts = (len(correct), int(correct.sum()), int(clean.sum()), int(zero.sum()))
        values = (cell_hash, run, network_id, *how, determined_by["precision"], *counts, seconds)
        marks = ", ".join("?" * (len(values) + 1))
        insert = f"INSERT INTO cells VALUES (NULL, {marks})"
        number = self._connection.execute(insert, (*values, _canonical(determined_by))).lastrowid
        linf = outcome.linf.astype(float).tolist()
        lines = zip(clean.tolist(), correct.tolist(), zero.tolist(), linf, strict=True)
        rows = ((number, image, *line) for image, line in enumerate(lines))
        self._connection.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?)", rows)


def _connected_to_read(file: Path) -> sqlite3.Connection:
    def connected(mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{file.resolve().as_uri()}?{mode}", uri=True, isolation_level=None)
        connection.execute("SELECT count(*) FROM sqlite_master")  # only now does SQLite open the file
        return connection

    try:
        return connected("mode=ro")
    except sqlite3.OperationalError as error:
        if not any(words in str(error) for words in ("unable to open", "readonly")):
            raise
    # nobody can write here, so SQLite cannot make the files that readers share
    log = file.with_name(f"{file.name}-wal")
    if log.exists() and log.stat().st_size:
        raise LedgerError(
            f"{file} was left in the middle of a run, and the end of it ({log.name}) cannot be read in a folder that "
            "cannot be written to; copy the folder to where you can write, and name that"
        )
    return connected("immutable=1")


def _begin_or_check(connection: sqlite3.Connection, file: Path) -> None:
    empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if empty:  # also after a kill in the middle of the next line, which is one transaction
        connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
    _check_version(connection, file)
    connection.executescript(f"BEGIN; {_VIEW} COMMIT;")


def _check_version(connection: sqlite3.Connection, file: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise LedgerError(
            f"{file} is a ledger of version {version}, this fastsnn writes and reads version {VERSION}; "
            "name another --out, or take the fastsnn that began it"
        )


@contextlib.contextmanager
def _told(file: Path) -> Iterator[None]:
    """Turn SQLite's errors into sentences with the file's path."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        hint = {
            "SQLITE_FULL": "free some space and run the same command again: what was finished is saved",
            "SQLITE_NOTADB": "it is no ledger, or damaged; name another --out",
            "SQLITE_CORRUPT": "it is damaged; name another --out, or take a copy from before",
        }.get(getattr(error, "sqlite_errorname", ""), "what was finished before is saved")
        raise LedgerError(f"{file}: {error}; {hint}") from error


def _canonical(content: dict) -> str:
    return json.dumps(content, sort_keys=True)


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
