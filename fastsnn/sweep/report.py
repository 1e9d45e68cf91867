"""What a sweep found, for machines (results.csv), for a terminal (tables) and for the eye (a figure)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import files
from .plan import Cell, Settings
from .run import Row

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = 80  # of the narrowest terminal
_HEAD = ("model", "pool", "attack")
_COLOURS = {"max": "tab:blue", "avg": "tab:orange"}
_LINES = {"fgsm": ("--", "o"), "pgd": ("-", "s")}


def write_csv(rows: Sequence[Row], settings: Settings, path: Path) -> None:
    """Write one line per row; equal settings on one machine give equal bytes, for there are no times in it.

    The file is whole or not there. Accuracies are in percent, eps in 1/255 and alpha absolute.
    """
    records = [_record(row, settings) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, records[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    files.write(path, text.getvalue().encode())


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the accuracies as tables of at most 80 columns: a line per network and attack, a column per eps."""
    from rich import box
    from rich.table import Table

    found = {row.cell: row for row in rows}
    budgets = list(dict.fromkeys(cell.eps for cell in found))
    lines = list(dict.fromkeys((cell.model, cell.pool, cell.attack) for cell in found))
    made = []
    names = [f"{eps:g}" for eps in budgets]
    left = sum(2 + max(map(len, column)) for column in zip(_HEAD, *lines, strict=True))
    fit = max(1, (_COLUMNS - left - 2) // (2 + max(map(len, ["100.0", *names]))))
    for first in range(0, len(budgets), fit):
        some = slice(first, first + fit)
        title = f"Accuracy (%) on {rows[0].images} test images over eps (encoded input, 1/255)"
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in _HEAD:
            table.add_column(name, no_wrap=True)
        for name in names[some]:
            table.add_column(name, justify="right", no_wrap=True)
        for line in lines:
            cells = [Cell(*line, eps) for eps in budgets[some]]
            table.add_row(*line, *(f"{_percent(found[cell]):.1f}" for cell in cells))
        made.append(table)
    return made


def write_figure(rows: Sequence[Row], settings: Settings, path: Path) -> None:
    """Draw accuracy over eps as a PNG: a panel per model, a line per pooling (colour) and attack (dash and marker)."""
    from matplotlib.figure import Figure

    models = settings.models
    figure = Figure(figsize=(1.6 + 4.4 * len(models), 4.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for panel, model in zip(panels, models, strict=True):
        for pool in settings.pools:
            for attack in settings.attacks:
                points = sorted(
                    (row.cell.eps, _percent(row))
                    for row in rows
                    if (row.cell.model, row.cell.pool, row.cell.attack) == (model, pool, attack)
                )
                dash, marker = _LINES[attack]
                name = f"{attack.upper()}-{settings.steps}" if attack == "pgd" else attack.upper()
                label = f"{pool} pooling, {name}"
                panel.plot(*zip(*points, strict=True), dash, marker=marker, color=_COLOURS[pool], label=label)
        panel.set(title=f"{model}, width {settings.width}, bn {settings.bn}", xlabel="eps (1/255 of the encoded input)")
        panel.grid(alpha=0.3)
    panels[0].set_ylim(10 * math.floor(min(map(_percent, rows)) / 10) - 2, 102)
    panels[0].set_ylabel(f"accuracy on {rows[0].images} test images of {settings.data} (%)")
    panels[-1].legend()
    content = io.BytesIO()
    figure.savefig(content, format="png")
    files.write(path, content.getvalue())


def _percent(row: Row) -> float:
    return 100 * row.correct / row.images


def _record(row: Row, settings: Settings) -> dict:
    is_pgd = row.cell.attack == "pgd"
    return {
        "data": settings.data,
        "model": row.cell.model,
        "width": settings.width,
        "pool": row.cell.pool,
        "attack": row.cell.attack,
        "eps_255": f"{row.cell.eps:.12g}",
        "steps": settings.steps if is_pgd else 1,
        "alpha": settings.alpha if is_pgd else "",
        "bn": settings.bn,
        "precision": settings.precision,
        "seed": settings.seed,
        "images": row.images,
        "correct": row.correct,
        "accuracy": f"{_percent(row):.2f}",
        "clean_accuracy": f"{100 * row.clean_correct / row.images:.2f}",
    }
