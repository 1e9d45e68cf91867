"""The figures of a report, as matplotlib figures."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import files
from ..sweep.figure import accuracy_over_eps
from ..sweep.report import ARITHMETIC, TRAINING, Row, differs, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def saved(figure: Figure, file: Path) -> Path:
    """Write a figure in the format that the file's name ends in, whole or not at all; return the file."""
    content = io.BytesIO()
    figure.savefig(content, format=file.suffix[1:], dpi=150)
    files.write(file, content.getvalue())
    return file
