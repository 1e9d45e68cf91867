"""Puts a report together: tables and figures of every ledger, in one HTML file."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files
from ..sweep.judged import JudgedLedger
from ..sweep.report import named, shared
from ..sweep.weights import CorruptWeightsError
from . import pictures, tables
from .figures import accuracies, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).parent / "page.html"
_NARROW = 7.0  # inches of a figure that stands beside another; wider ones have the page's whole width
_PIXELS = 110  # for an inch of a figure, where there is room


def write(runs: Sequence[Path], folder: Path, *, with_pictures: bool = True) -> list[Path]:
    """Write report.html and its figures; return the files.

    Args:
        runs: the folders of sweeps; one that is named twice is shown once.
        folder: where to, made if need be; figures go to its figures/ as PNG and PDF.
        with_pictures: also attack a few images anew and show them.

    Raises:
        LedgerError: a folder holds no ledger that can be read; nothing was written.
        OSError: a file cannot be written.
    """
    import jinja2

    runs = list({run.resolve(): run for run in runs}.values())
    sections = []
    for run in runs:
        with JudgedLedger.read(run) as ledger:
            sections.append(_section(run, ledger, with_pictures))
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    paths = []
    for (section, figures), label in zip(sections, _labels(runs), strict=True):
        for name, figure in figures.items():
            png, pdf = (folder / "figures" / f"{label}{name}.{kind}" for kind in ("png", "pdf"))
            paths += [saved(figure, png), saved(figure, pdf)]
            picture = base64.b64encode(png.read_bytes()).decode()
            inches = figure.get_figwidth()
            size = {"pixels": round(_PIXELS * inches), "wide": inches > _NARROW}
            section["figures"].append({"name": name, "data": picture, **size})
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(TEMPLATE.read_text()).render(sections=[section for section, _ in sections])
    files.write(folder / "report.html", page.encode())
    return [folder / "report.html", *paths]


def _labels(runs: Sequence[Path]) -> list[str]:
    """Return what each run's files begin with: as many of its path's last folders as tell it from the others."""
    if len(runs) == 1:
        return [""]
    parts = [run.resolve().parts for run in runs]
    depth = next(d for d in range(1, max(map(len, parts)) + 1) if len({part[-d:] for part in parts}) == len(parts))
    return ["-".join([*(name.strip("/") for name in part[-depth:]), ""]) for part in parts]


def _section(run: Path, ledger: JudgedLedger, with_pictures: bool) -> tuple[dict[str, Any], dict[str, Figure]]:
    rows = ledger.results()
    section = {
        "name": str(run),
        "cells": len(rows),
        "samples": sum(row["images"] for row in rows),
        "shared": named(shared(rows)),
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
    section["tables"] = tables.all_of_them(ledger, rows)
    figures = accuracies(rows)
    row = pictures.row_to_show(rows) if with_pictures else None
    if row is not None:
        try:
            figures["pictures"] = pictures.wall(row, ledger)
        except (FileNotFoundError, ValueError, CorruptWeightsError) as error:
            section["notes"].append(str(error))
    return section, figures


def _lines(content: dict) -> list[tuple[str, str]]:
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in content.items()]
