"""Accuracy over eps for the eye, as a matplotlib figure.

Colour is the pooling, dashes tell attacks apart (PGD has a line), shades and markers their steps. All else that differs
has panels of its own, but for seeds: a line is their mean. What the panels share stands under them.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import files
from ..models import NO_POOL
from .report import ATTACK, TRAINING, Row, attack_name, differing, has, named, shared

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"max": "tab:blue", "avg": "tab:orange", NO_POOL: "tab:green"}
_DASHES = {"fgsm": "--", "pgd": "-", "mim": "-.", "apgd": ":", "apgdt": (0, (1, 3))}
_MARKERS = "sD^vP*Xph"
_OF_LINES = ("pool", "attack", "steps", "seed")
_OF_SOME = ("restarts", "alpha")  # FGSM has neither, and stands beside PGD with any
_TITLE = ("model", "data", "width", "bn")
_UNDER = ("seed", *TRAINING, *ATTACK, "torch", "device")
_LINES_WITH_BANDS = 4  # in a panel; more would cover each other
_LETTERS = 15.5  # in an inch of small text
Key = tuple[tuple[str, object], ...]  # of a panel: what it differs in from others, as (name, value)
_Z = 1.96  # of a normal distribution: 95 % lie within


def write(rows: Sequence[Row], path: Path) -> None:
    """Draw rows to a PNG, whole or not at all."""
    content = io.BytesIO()
    accuracy_over_eps(rows).savefig(content, format="png", dpi=150)
    files.write(path, content.getvalue())


def accuracy_over_eps(rows: Sequence[Row], told: Sequence[str] = ()) -> Figure:
    """Return the figure of some rows of the results; its title also names `told`, which tells it from other figures.

    Bands hold 95 % of what other test images would give (Wilson 1927); where several seeds were trained, they reach
    from the least to the largest. Panels of many lines have none.
    """
    from matplotlib.figure import Figure

    panels = _panels(rows)
    columns = _columns(list(panels))
    lines = -(-len(panels) // columns)
    width, height = (6.4, 3.6) if len(panels) == 1 else (max(6.4, 3.5 * columns), 2.9 * lines)
    under = textwrap.fill(_under(rows, panels.values()), int(_LETTERS * (width - 0.4)))
    labels = _labels(rows)
    fit = int(_LETTERS * (width - 0.4) / (max(map(len, labels)) + 9))
    across = max(1, min(fit, -(-len(labels) // len({row["pool"] for row in rows}))))  # max over avg
    height += 0.5 + 0.17 * (1 + under.count("\n")) + 0.2 * -(-len(labels) // across)
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    drawn = {}
    for axes, (key, some) in zip(grid.flat, panels.items(), strict=False):
        drawn |= _draw(axes, some, rows)
        title = named({name: value for name, value in key if value is not None})
        axes.set_title(textwrap.fill(title, int(_LETTERS * width / columns)), fontsize="small")
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("eps (1/255 of the encoded input)", fontsize="small")
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    grid[0, 0].set_ylim(-2, 102)
    title = named(shared(rows, (*_TITLE, *told))).replace("model ", "").replace("data ", "")
    figure.suptitle(textwrap.fill(title, int(0.8 * _LETTERS * width)), fontsize="medium")
    figure.supylabel(f"accuracy on {_numbers(rows, 'images')} test images (%)", fontsize="medium")
    where = {"loc": "outside lower center", "ncols": across, "frameon": False, "fontsize": "small"}
    legend = figure.legend([drawn[label] for label in labels], labels, **where, title=under, title_fontsize="small")
    legend.get_title().set(color="0.35", multialignment="center")
    return figure


def wilson(correct: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy, in percent: where it likely is, from so many of so many images."""
    share, squared = correct / images, _Z**2 / images
    middle, half = share + squared / 2, _Z * math.sqrt(share * (1 - share) / images + squared / (4 * images))
    return 100 * (middle - half) / (1 + squared), 100 * (middle + half) / (1 + squared)


def _panels(rows: Sequence[Row]) -> dict[Key, list[Row]]:
    """Return the rows of each panel."""
    names = [name for name in differing(rows) if name not in _OF_LINES]
    found: dict[Key, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["attack"] == "fgsm"):  # those that know their panel first
        own = tuple((name, row[name]) for name in names)
        beside = [key for key in found if row["attack"] == "fgsm" and _stands_beside(own, key)]
        for key in beside or [own]:
            found.setdefault(key, []).append(row)
    return {key: found[key] for key in sorted(found, key=_in_order)}


def _in_order(key: Key) -> list[tuple]:
    """Return what sorts panels: of values that are missing, words or numbers."""
    return [(value is not None, isinstance(value, str), value) for _, value in key]


def _stands_beside(own: Key, key: Key) -> bool:
    return all(one == other for one, other in zip(own, key, strict=True) if one[0] not in _OF_SOME)


def _columns(keys: Sequence[Key]) -> int:
    """Return how many panels stand side by side: as many as what differs last has values, or what looks well."""
    last, count = len({key[-1][1] for key in keys if key}), len(keys)
    if count > 6:
        return 4
    return last if last in (2, 3) and count % last == 0 else 2 if count in (2, 4) else min(3, count)


def _draw(axes: Axes, some: Sequence[Row], rows: Sequence[Row]) -> dict[str, object]:
    """Draw the lines of a panel; return them by label."""
    from matplotlib.colors import to_rgb

    steps = sorted({row["steps"] for row in rows if has(row, "steps")})
    drawn, by_label = {}, {}
    for row in some:
        by_label.setdefault(_label(row), []).append(row)
    for label, line in by_label.items():
        first, marker, shade = line[0], "o", 1.0
        if has(first, "steps"):
            place = steps.index(first["steps"])
            marker, shade = _MARKERS[place % len(_MARKERS)], (place + 1) / len(steps) * 0.65 + 0.35
        look = {"color": [1 - shade * (1 - part) for part in to_rgb(COLOURS[first["pool"]])], "marker": marker}
        eps, mean, low, high = zip(*(_point(line, budget) for budget in _budgets(line)), strict=True)
        (drawn[label],) = axes.plot(eps, mean, _DASHES[first["attack"]], label=label, markersize=4, **look)
        if len(by_label) <= _LINES_WITH_BANDS:
            axes.fill_between(eps, low, high, color=look["color"], alpha=0.12, linewidth=0)
    axes.grid(alpha=0.3)
    return drawn


def _point(line: Sequence[Row], eps: float) -> tuple[float, float, float, float]:
    """Return eps, mean accuracy, and the ends of its band."""
    there = [row for row in line if row["eps_255"] == eps]
    accuracies = [row["accuracy"] for row in there]
    if len(there) == 1:
        return eps, accuracies[0], *wilson(there[0]["correct"], there[0]["images"])
    return eps, sum(accuracies) / len(accuracies), min(accuracies), max(accuracies)


def _under(rows: Sequence[Row], panels: Sequence[Sequence[Row]]) -> str:
    """Return the settings that all rows share, and what lines and bands are."""
    names = [name for name in _UNDER if name not in ("steps", "images", *_TITLE)]
    pairs = [named({name: value}).replace(" ", "\N{NO-BREAK SPACE}") for name, value in shared(rows, names).items()]
    said = [", ".join(pairs)]
    several = len({row["seed"] for row in rows}) > 1
    if several:
        said.append(f"lines are means over the seeds {_numbers(rows, 'seed', ', ')}")
    if any(len(set(map(_label, some))) <= _LINES_WITH_BANDS for some in panels):
        said.append("bands reach from the least to the largest" if several else "bands: 95 % interval (Wilson)")
    return "; ".join(said)


def _labels(rows: Sequence[Row]) -> list[str]:
    """Return the labels of all lines, an attack's poolings beside each other."""
    order = sorted(rows, key=lambda row: (row["attack"], row["steps"], row["pool"] == "avg"))
    return list(dict.fromkeys(map(_label, order)))


def _label(row: Row) -> str:
    return f"{'no' if row['pool'] == NO_POOL else row['pool']} pooling, {attack_name(row)}"


def _budgets(rows: Sequence[Row]) -> list[float]:
    return sorted({row["eps_255"] for row in rows})


def _numbers(rows: Sequence[Row], name: str, between: str = "/") -> str:
    return between.join(map(str, sorted({row[name] for row in rows})))
