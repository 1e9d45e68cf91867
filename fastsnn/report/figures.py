"""The figures of a report, as matplotlib figures."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import files
from ..sweep.report import Row, attack_name, differs, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"max": "tab:blue", "avg": "tab:orange"}
_DASHES = {"fgsm": "--", "pgd": "-", "mim": "-.", "apgd": ":", "apgdt": ":"}
_MARKERS = "osD^vP*X"
_Z = 1.96  # of a normal distribution: 95 % lie within


def accuracy_over_eps(rows: Sequence[Row]) -> dict[str, Figure]:
    """Return a figure for each data set, network and batch-norm mode: accuracy over eps, a line per attack and pooling.

    Bands hold 95 % of what other test images would give (Wilson 1927); where several seeds were trained, lines are
    their means, and bands reach from the least to the largest.
    """
    from matplotlib.figure import Figure

    figures = {}
    for data, model, width, bn in dict.fromkeys((row["data"], row["model"], row["width"], row["bn"]) for row in rows):
        some = [row for row in rows if (row["data"], row["model"], row["width"], row["bn"]) == (data, model, width, bn)]
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        kinds: dict[str, int] = {}
        for label, line in _lines(some).items():
            first = line[0]
            kind = label.partition(", ")[2]
            look = {"color": COLOURS[first["pool"]], "marker": _MARKERS[kinds.setdefault(kind, len(kinds)) % 8]}
            points = [_point(line, eps) for eps in sorted({row["eps_255"] for row in line})]
            eps, mean, low, high = zip(*points, strict=True)
            axes.plot(eps, mean, _DASHES[first["attack"]], label=label, markersize=5, **look)
            axes.fill_between(eps, low, high, color=look["color"], alpha=0.12, linewidth=0)
        images = "/".join(map(str, sorted({row["images"] for row in some})))
        axes.set(title=f"{model}, width {width}, {data}, bn {bn}", xlabel="eps (1/255 of the encoded input)")
        axes.set(ylabel=f"accuracy on {images} test images (%)", ylim=(-2, 102))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="lower left")
        figures[f"accuracy-{data}-{model}-{width}-{bn}"] = figure
    return figures


def saved(figure: Figure, file: Path) -> Path:
    """Write a figure in the format that the file's name ends in, whole or not at all; return the file."""
    content = io.BytesIO()
    figure.savefig(content, format=file.suffix[1:], dpi=150)
    files.write(file, content.getvalue())
    return file


def wilson(correct: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy, in percent: where it likely is, from so many of so many images."""
    share, squared = correct / images, _Z**2 / images
    middle, half = share + squared / 2, _Z * math.sqrt(share * (1 - share) / images + squared / (4 * images))
    return 100 * (middle - half) / (1 + squared), 100 * (middle + half) / (1 + squared)


def _lines(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return rows by line: seeds share one, all else that differs is in its label."""
    could_differ = ("restarts", "alpha", "surrogate", "precision", "T", "K", "coding")
    others = [name for name in could_differ if differs(rows, name)]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        more = [f"{name} {written(row[name])}" for name in others]
        lines.setdefault(", ".join([f"{row['pool']} pooling", attack_name(row), *more]), []).append(row)
    return lines


def _point(line: Sequence[Row], eps: float) -> tuple[float, float, float, float]:
    """Return eps, mean accuracy, and the ends of its band."""
    there = [row for row in line if row["eps_255"] == eps]
    accuracies = [row["accuracy"] for row in there]
    if len(there) == 1:
        return eps, accuracies[0], *wilson(there[0]["correct"], there[0]["images"])
    return eps, sum(accuracies) / len(accuracies), min(accuracies), max(accuracies)
