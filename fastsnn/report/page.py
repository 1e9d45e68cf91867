"""Puts a report together: tables and figures of every ledger, in one HTML file."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files
from ..sweep import Ledger
from ..sweep.export import worst_cases
from ..sweep.report import Row, attack_name, differs, written
from . import pictures, published
from .figures import accuracy_over_eps, saved, wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).parent / "page.html"
_HOW = ("bn", "surrogate", "steps", "restarts", "alpha", "precision", "seed", "data", "width", "T", "K", "coding")


def write(runs: Sequence[Path], folder: Path, *, with_pictures: bool = True) -> list[Path]:
    """Write report.html and its figures; return the files.

    Args:
        runs: the folders of sweeps.
        folder: where to, made if need be; figures go to its figures/ as PNG and PDF.
        with_pictures: also attack a few images anew and show them.

    Raises:
        LedgerError: a folder holds no ledger that can be read.
        OSError: a file cannot be written.
    """
    import jinja2

    (folder / "figures").mkdir(parents=True, exist_ok=True)
    sections, paths = [], []
    for run in runs:
        with Ledger.read(run) as ledger:
            section, figures = _section(run, ledger, with_pictures)
        for name, figure in figures.items():
            stem = folder / "figures" / (name if len(runs) == 1 else f"{run.resolve().name}-{name}")
            png = saved(figure, stem.with_name(f"{stem.name}.png"))
            paths += [png, saved(figure, stem.with_name(f"{stem.name}.pdf"))]
            picture = base64.b64encode(png.read_bytes()).decode()
            section["figures"].append({"name": name, "data": picture})
        sections.append(section)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(TEMPLATE.read_text()).render(sections=sections)
    files.write(folder / "report.html", page.encode())
    return [folder / "report.html", *paths]


def _section(run: Path, ledger: Ledger, with_pictures: bool) -> tuple[dict[str, Any], dict[str, Figure]]:
    rows = ledger.results()
    section = {
        "name": str(run),
        "cells": len(rows),
        "samples": sum(row["images"] for row in rows),
        "tables": [],
        "figures": [],
        "notes": [],
        "runs": [
            {**one, "settings": _lines(one["settings"]), "machine": _lines(one["machine"])} for one in ledger.runs()
        ],
    }
    if not rows:
        section["notes"].append("This sweep has no finished cell yet.")
        return section, {}
    section["tables"] = [_poolings(rows), _worst_case(ledger, rows), _every_cell(rows), _throughput(rows)]
    figures = accuracy_over_eps(rows)
    row = pictures.row_to_show(rows) if with_pictures else None
    if row is not None:
        try:
            figures["pictures"] = pictures.wall(row, ledger)
        except (FileNotFoundError, ValueError) as error:
            section["notes"].append(str(error))
    return section, figures


def _table(title: str, note: str, head: list[str], lines: list[list]) -> dict[str, Any]:
    return {"title": title, "note": note, "head": head, "lines": [[written(value) for value in line] for line in lines]}


def _poolings(rows: Sequence[Row]) -> dict[str, Any]:
    """Return max against average pooling in the layout of the paper's tables 2 and 3, at its budget or the nearest."""
    eps = min({row["eps_255"] for row in rows}, key=lambda budget: (abs(budget - published.EPS_255), budget))
    there = [row for row in rows if row["eps_255"] == eps]
    others = [name for name in _HOW if name != "seed" and differs(there, name)]
    lines: dict[tuple, dict[tuple[str, str], list[Row]]] = {}
    for row in there:
        shared = tuple(row[name] for name in others if name not in ("steps", "restarts", "alpha"))
        key = (row["data"], row["model"], *shared)
        lines.setdefault(key, {}).setdefault((row["pool"], attack_name(row)), []).append(row)
    names = list(
        dict.fromkeys(attack_name(row) for row in sorted(there, key=lambda row: (row["attack"], row["steps"])))
    )
    poolings = [pool for pool in ("max", "avg") if any(row["pool"] == pool for row in there)]
    head = ["data", "network", *(name for name in others if name not in ("steps", "restarts", "alpha"))]
    head += [f"{what} {pool}" for pool in poolings for what in (*names, "clean")]
    body, compared = [], False
    for key, found in lines.items():
        line = list(key)
        for pool in poolings:
            of_pool = [row for (one, _), some in found.items() if one == pool for row in some]
            for name in (*names, "clean"):
                some = of_pool if name == "clean" else found.get((pool, name), [])
                what = "clean" if name == "clean" else name.partition("-")[0].lower()
                field = "clean_accuracy" if name == "clean" else "accuracy"
                text = _mean([row[field] for row in some])
                paper = next(filter(None, (published.beside(row, what) for row in some)), None)
                compared |= paper is not None
                line.append(text if paper is None else f"{text} (paper {paper:g})")
        body.append(line)
    note = "Accuracy in %, means over seeds." if differs(there, "seed") else "Accuracy in %."
    note += " In brackets what the paper published for that cell." if compared else ""
    return _table(f"Max against average pooling at eps = {eps:g}/255", note, head, body)


def _worst_case(ledger: Ledger, rows: Sequence[Row]) -> dict[str, Any]:
    lines = []
    networks = {row["network"]: row for row in rows}
    for number, row in networks.items():
        about = [row["data"], row["coding"], row["model"], row["pool"], row["seed"]]
        for (eps, bn), count, correct, images in worst_cases(ledger, number):
            low, high = wilson(correct, images)
            lines.append([*about, bn, eps, count, f"{100 * correct / images:.2f}", f"{low:.1f} to {high:.1f}"])
    note = (
        "An image counts as right if it stays right under every attack made with that eps and bn: never more than the"
    )
    note += " least of their accuracies. The interval is Wilson's, 95 %."
    head = ["data", "coding", "network", "pool", "seed", "bn", "eps/255", "attacks", "accuracy %", "interval"]
    return _table("Worst case over attacks, image by image", note, head, lines)


def _every_cell(rows: Sequence[Row]) -> dict[str, Any]:
    names = ["pool", "attack", "eps_255", "steps", "restarts", "alpha", "bn", "surrogate", "precision", "seed"]
    head = ["data", "coding", "model", *names, "images", "accuracy %", "interval", "clean %", "zero gradients"]
    lines = []
    for row in rows:
        low, high = wilson(row["correct"], row["images"])
        about = [row[name] for name in ("data", "coding", "model", *names)]
        result = [row["images"], f"{row['accuracy']:.2f}", f"{low:.1f} to {high:.1f}", f"{row['clean_accuracy']:.2f}"]
        lines.append([*about, *result, row["zero_gradients"]])
    note = "Zero gradients: images at which no gradient-based attack can take a first step."
    return _table("Every cell", note, head, lines)


def _throughput(rows: Sequence[Row]) -> dict[str, Any]:
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["pool"], attack_name(row), row["bn"], row["precision"]), []).append(row)
    lines = []
    for key, some in groups.items():
        images, seconds = sum(row["images"] for row in some), sum(row["seconds"] for row in some)
        lines.append([*key, len(some), f"{seconds:.1f}", f"{images / max(seconds, 1e-9):.1f}"])
    note = "Adversarial images made and scored per second, over the time from one saved pass to the next."
    head = ["model", "pool", "attack", "bn", "precision", "cells", "seconds", "images/s"]
    return _table("Throughput", note, head, lines)


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.2f}" if values else ""


def _lines(content: dict) -> list[tuple[str, str]]:
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in content.items()]
