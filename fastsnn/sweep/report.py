"""What a sweep found, for machines (results.csv) and for a terminal (tables), and what tells its rows apart.

Rows are those of the ledger's view `results`. The figure is in figure.py.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files
from .by_name import takes

if TYPE_CHECKING:
    from rich.table import Table

Row = Mapping[str, Any]
_COLUMNS = 80  # of the narrowest terminal
_SHOWN = ("model", "pool", "attack")  # of each line of a table; the others where they differ
TRAINING = (
    "width",
    "T",
    "K",
    "coding",
    "defence",
    "frame_size",
    "epochs",
    "train_batch_size",
    "lr",
    "schedule",
    "weight_decay",
    "optimizer",
    "flips",
    "train_precision",
    "threads",
)
ATTACK = ("steps", "restarts", "alpha", "bn", "surrogate", "precision", "batch_size", "images")
ARITHMETIC = ("torch", "device", "kernels", "recipe")
AXES = (*_SHOWN, "data", "stem", "seed", *TRAINING, *ATTACK, *ARITHMETIC)
_NOT_IN_CSV = ("cell", "network", "run", "seconds")  # equal sweeps on one machine give equal bytes


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write one line per cell, whole or not at all. Accuracies are in percent, eps in 1/255 and alpha absolute."""
    text = io.StringIO()
    if rows:
        names = [name for name in rows[0].keys() if name not in _NOT_IN_CSV]  # noqa: SIM118 - sqlite3.Row is no dict
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([written(row[name]) for name in names] for row in rows)
    files.write(path, text.getvalue().encode())


def lines(rows: Sequence[Row]) -> tuple[list[str], dict[tuple, dict[float, Row]]]:
    """Return the names of what tells the lines apart, and for each line its rows by eps."""
    found: dict[tuple, dict[float, Row]] = {}
    names = [*_SHOWN, *(name for name in differing(rows) if name not in _SHOWN)]
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), {})[row["eps_255"]] = row
    return names, found


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the accuracies as tables of at most 80 columns: a line per network and attack, a column per eps."""
    from rich import box
    from rich.table import Table

    head, found = lines(rows)
    budgets = sorted({row["eps_255"] for row in rows})
    keys = [tuple(map(written, key)) for key in found]
    names = [f"{eps:g}" for eps in budgets]
    left = sum(2 + max(map(len, map(str, column))) for column in zip(head, *keys, strict=True))
    fit = max(1, (_COLUMNS - left - 2) // (2 + max(map(len, ["100.0", *names]))))
    images = sorted({row["images"] for row in rows})
    made = []
    for first in range(0, len(budgets), fit):
        some = budgets[first : first + fit]
        title = f"Accuracy (%) on {'/'.join(map(str, images))} test images over eps (encoded input, 1/255)"
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in head:
            table.add_column(name, no_wrap=True)
        for eps in some:
            table.add_column(f"{eps:g}", justify="right", no_wrap=True)
        for key, by_eps in zip(keys, found.values(), strict=True):
            table.add_row(*map(str, key), *(f"{by_eps[eps]['accuracy']:.1f}" if eps in by_eps else "" for eps in some))
        made.append(table)
    return made


def attack_name(row: Row) -> str:
    """Return e.g. "FGSM" or "PGD-7"."""
    return row["attack"].upper() if row["attack"] == "fgsm" else f"{row['attack'].upper()}-{row['steps']}"


def differing(rows: Sequence[Row]) -> list[str]:
    """Return the names of all that tells rows apart, but for eps.

    "network" is among them where two networks are alike in all that has a name, as after a change of their images.
    """
    names = [name for name in AXES if differs(rows, name)]
    of_network = [name for name in names if name not in ATTACK and name != "attack"]
    alike = {(row["network"], *(row[name] for name in of_network)) for row in rows}
    return names if len({key[1:] for key in alike}) == len(alike) else [*names, "network"]


def differs(rows: Sequence[Row], name: str) -> bool:
    """Tell whether rows that have a value there have several; FGSM's one step and restart are none."""
    return len({row[name] for row in rows if has(row, name)}) > 1


def has(row: Row, name: str) -> bool:
    """Tell whether a row has a value there that somebody could have chosen otherwise."""
    chosen = name not in ("steps", "restarts", "alpha") or takes(row["attack"], name)
    return row[name] is not None and chosen


def shared(rows: Sequence[Row], names: Sequence[str] = AXES) -> dict[str, Any]:
    """Return what rows have in common."""
    values = {name: {row[name] for row in rows if has(row, name)} for name in names}
    return {name: next(iter(some)) for name, some in values.items() if len(some) == 1}


def named(settings: Mapping[str, Any]) -> str:
    """Return settings as in "width 16, T 10"."""
    return ", ".join(f"{name} {written(value)}" for name, value in settings.items())


def written(value: Any) -> str | int:
    """Return a value as tables and CSV files show it."""
    if isinstance(value, float):
        return f"{value:.12g}"
    return "" if value is None else value
