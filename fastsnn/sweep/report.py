"""What a sweep found, for machines (results.csv), for a terminal (tables) and for the eye (a figure).

Rows are those of the ledger's view `results`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files
from .by_name import takes

if TYPE_CHECKING:
    from rich.table import Table

Row = Mapping[str, Any]
_COLUMNS = 80  # of the narrowest terminal
_COLOURS = {"max": "tab:blue", "avg": "tab:orange"}
_LINES = {"fgsm": ("--", "o"), "pgd": ("-", "s"), "mim": ("-.", "^"), "apgd": (":", "D"), "apgdt": (":", "v")}
# what tells lines of a table or figure apart; the first three are always shown, the others where they differ
_SHOWN = ("model", "pool", "attack")
_NETWORK = ("data", "seed", "width", "T", "K", "coding")
_AXES = (*_SHOWN, *_NETWORK, "steps", "restarts", "alpha", "bn", "surrogate", "precision")
_NOT_IN_CSV = ("cell", "network", "seconds")  # equal sweeps on one machine give equal bytes


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
    differing = [name for name in _AXES if name in _SHOWN or differs(rows, name)]
    found: dict[tuple, dict[float, Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in differing), {})[row["eps_255"]] = row
    return differing, found


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


def write_figure(rows: Sequence[Row], path: Path) -> None:
    """Draw accuracy over eps as a PNG: a panel per model, a line per pooling (colour) and attack (dash and marker)."""
    from matplotlib.figure import Figure

    head, found = lines(rows)
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(1.6 + 4.4 * len(models), 4.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for panel, model in zip(panels, models, strict=True):
        for by_eps in found.values():
            first = next(iter(by_eps.values()))
            if first["model"] == model:
                dash, marker = _LINES[first["attack"]]
                points = sorted((eps, row["accuracy"]) for eps, row in by_eps.items())
                look = {"marker": marker, "color": _COLOURS[first["pool"]], "label": _label(first, head)}
                panel.plot(*zip(*points, strict=True), dash, **look)
        settled = [f"{name} {written(rows[0][name])}" for name in ("width", "bn") if not differs(rows, name)]
        panel.set(title=", ".join([model, *settled]), xlabel="eps (1/255 of the encoded input)")
        panel.grid(alpha=0.3)
    panels[0].set_ylim(10 * math.floor(min(row["accuracy"] for row in rows) / 10) - 2, 102)
    panels[0].set_ylabel(f"accuracy on {rows[0]['images']} test images of {rows[0]['data']} (%)")
    panels[-1].legend(fontsize="small")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    files.write(path, content.getvalue())


def attack_name(row: Row) -> str:
    """Return e.g. "FGSM" or "PGD-7"."""
    return row["attack"].upper() if row["attack"] == "fgsm" else f"{row['attack'].upper()}-{row['steps']}"


def _label(row: Row, head: Sequence[str]) -> str:
    others = [f"{name} {written(row[name])}" for name in head if name not in (*_SHOWN, "steps")]
    return ", ".join([f"{row['pool']} pooling", attack_name(row), *others])


def differs(rows: Sequence[Row], name: str) -> bool:
    """Tell whether rows that take such a setting have several values of it."""
    attacks = name in ("steps", "restarts", "alpha")
    return len({row[name] for row in rows if not attacks or takes(row["attack"], name)}) > 1


def written(value: Any) -> str | int:
    """Return a value as tables and CSV files show it."""
    if isinstance(value, float):
        return f"{value:.12g}"
    return "" if value is None else value
