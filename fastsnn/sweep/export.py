"""A ledger's content for other programs: CSV, Parquet, JSON."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .. import files
from . import report
from .ledger import Ledger

FORMATS = ("csv", "parquet", "json")
_BLOCK = 100_000  # lines in memory at a time, and in a row group of Parquet


def write(ledger: Ledger, file: Path, kind: str, *, samples: bool = False) -> list[Path]:
    """Write the results to `file`, whole or not at all; return the files written.

    Args:
        ledger: whose results.
        file: where to.
        kind: "csv" and "parquet" hold the view `results`, a line per cell; "json" an object per network, with its
            clean accuracy, that under each cell, and for each eps that of the worst case over attacks.
        samples: also write every image of every cell to a file beside, whose name says so.

    Raises:
        ImportError: Parquet needs pyarrow, which is not installed.
        ValueError: samples are asked for as JSON.
        OSError: a file cannot be written.
    """
    if samples and kind == "json":
        raise ValueError("samples cannot be exported as JSON; take csv or parquet.")
    if kind == "json":
        files.write(file, (json.dumps(networks(ledger), indent=2) + "\n").encode())
        return [file]
    rows = [dict(row) for row in ledger.results()]
    cells = [list(row.values()) for row in rows]
    written = [_write_table(file, kind, list(rows[0]) if rows else [], [cells])]
    if samples:
        beside = file.with_name(f"{file.stem}-samples{file.suffix}")
        names = ["cell", "image", "clean_correct", "correct", "zero_gradient", "linf"]
        written.append(_write_table(beside, kind, names, _blocks(_samples(ledger, rows))))
    return written


def networks(ledger: Ledger) -> list[dict]:
    """Return what "json" writes: much like RobustBench's model entries, a dictionary per network."""
    found: dict[int, dict] = {}
    for row in map(dict, ledger.results()):
        names = ("data", "model", "width", "stem", "pool", "seed", "T", "K", "coding", "defence")
        about = {name: row[name] for name in names}
        entry = found.setdefault(row["network"], about | {"clean_acc": row["clean_accuracy"], "attacks": []})
        how = ("attack", "eps_255", "steps", "restarts", "alpha", "bn", "surrogate", "precision", "images", "accuracy")
        entry["attacks"].append({name: row[name] for name in how})
    for number, entry in found.items():
        entry["worst_case"] = [
            {"eps_255": eps, "bn": bn, "images": images, "accuracy": 100 * correct / images, "attacks": count}
            for (eps, bn), count, correct, images in worst_cases(ledger, number)
        ]
    return list(found.values())


def worst_cases(ledger: Ledger, network: int) -> Iterator[tuple[tuple[float, str], int, int, int]]:
    """Yield for each (eps, bn) of a network how many cells there are, and how many of how many images stay right."""
    groups: dict[tuple[float, str], list[int]] = {}
    for row in ledger.results():
        if row["network"] == network:
            groups.setdefault((row["eps_255"], row["bn"]), []).append(row["cell"])
    for key, cells in groups.items():
        correct, images = ledger.worst_case(cells)
        if images:
            yield key, len(cells), correct, images


def _samples(ledger: Ledger, rows: Sequence[dict]) -> Iterator[list]:
    for row in rows:
        for line in ledger.samples(row["cell"]):
            yield [row["cell"], *line]


def _blocks(lines: Iterator[list]) -> Iterator[list[list]]:
    """Yield the lines in blocks, at least one, which may be empty."""
    block = list(itertools.islice(lines, _BLOCK))
    yield block
    while block := list(itertools.islice(lines, _BLOCK)):
        yield block


def _write_table(file: Path, kind: str, names: list[str], blocks: Iterable[list[list]]) -> Path:
    """Write a table block by block; in Parquet the first one decides the columns' types."""
    if kind == "csv":
        with files.replaced(file) as beside, beside.open("w", newline="") as text:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(names)
            for rows in blocks:
                writer.writerows([report.written(value) for value in row] for row in rows)
        return file
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError('Parquet needs pyarrow; install with: pip install "fastsnn[parquet]"')
    import pyarrow
    import pyarrow.parquet

    tables = (
        pyarrow.table(dict(zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True)))
        for rows in blocks
    )
    first = next(tables)
    with files.replaced(file) as beside, pyarrow.parquet.ParquetWriter(beside, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)
    return file
