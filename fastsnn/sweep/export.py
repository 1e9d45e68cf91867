"""A ledger's content for other programs: CSV, Parquet, JSON."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path

from .. import files
from . import report
from .ledger import Ledger

FORMATS = ("csv", "parquet", "json")


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
    written = [_write_table(file, kind, list(rows[0]) if rows else [], [list(row.values()) for row in rows])]
    if samples:
        beside = file.with_name(f"{file.stem}-samples{file.suffix}")
        names = ["cell", "image", "clean_correct", "correct", "zero_gradient", "linf"]
        written.append(_write_table(beside, kind, names, list(_samples(ledger))))
    return written


def networks(ledger: Ledger) -> list[dict]:
    """Return what "json" writes: much like RobustBench's model entries, a dictionary per network."""
    found: dict[int, dict] = {}
    for row in map(dict, ledger.results()):
        about = {name: row[name] for name in ("data", "model", "width", "pool", "seed", "T", "K", "coding")}
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


def _samples(ledger: Ledger) -> Iterator[list]:
    for row in ledger.results():
        for line in ledger.samples(row["cell"]):
            yield [row["cell"], *line]


def _write_table(file: Path, kind: str, names: list[str], rows: list[list]) -> Path:
    if kind == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([report.written(value) for value in row] for row in rows)
        files.write(file, text.getvalue().encode())
        return file
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError('Parquet needs pyarrow; install with: pip install "fastsnn[parquet]"')
    import pyarrow
    import pyarrow.parquet

    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names]
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(dict(zip(names, columns, strict=True))), sink)
    files.write(file, sink.getvalue().to_pybytes())
    return file
