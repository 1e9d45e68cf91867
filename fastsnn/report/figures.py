"""The figures of a report, as matplotlib figures."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import files
from ..models import NO_POOL, STEM
from ..sweep.figure import accuracy_over_eps
from ..sweep.plan import Network
from ..sweep.report import ARITHMETIC, TRAINING, Row, differs, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POOLINGS = {"max": "max pooling", "avg": "average pooling", NO_POOL: "no pooling"}
_NAMED = ("data", "model", "width", "bn")  # in this order in every figure's name, the others where they differ
_OTHERS = (*(name for name in TRAINING if name not in _NAMED), *ARITHMETIC)


def accuracies(rows: Sequence[Row]) -> dict[str, Figure]:
    """Return a figure for each data set, network, training and batch-norm mode, by a name that can be a file's."""
    others = [name for name in _OTHERS if differs(rows, name)]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        about = [written(row[name]) for name in _NAMED] + [f"{name}-{written(row[name])}" for name in others]
        groups.setdefault("-".join(["accuracy", *map(_plain, about)]), []).append(row)
    return {name: accuracy_over_eps(some, others) for name, some in groups.items()}


def _plain(text: object) -> str:
    """Return text without what a file's name should not have."""
    return re.sub(r"[^\w.+-]", "_", str(text))


def subject(network: Network) -> tuple[str, ...]:
    """Return what a figure of gradients shows: data set, model, and coding, defence and stem that are not usual."""
    more = (network.coding,) if network.coding != "phase" else ()
    more += (re.sub(r"\W+", "-", network.defence),) if network.defence != "none" else ()
    more += (f"{network.stem}-stem",) if network.stem != STEM else ()
    return network.data, network.model, *more


def title_of(subject: tuple[str, ...]) -> str:
    """Return a subject as a title: the network first."""
    return ", ".join((subject[1], subject[0], *subject[2:]))


def save(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write figures by their names into a folder, made if need be, as PNG and PDF; return the files.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [saved(figure, folder / f"{name}.{kind}") for name, figure in figures.items() for kind in ("png", "pdf")]


def saved(figure: Figure, file: Path) -> Path:
    """Write a figure in the format that the file's name ends in, whole or not at all; return the file."""
    content = io.BytesIO()
    figure.savefig(content, format=file.suffix[1:], dpi=150)
    files.write(file, content.getvalue())
    return file
