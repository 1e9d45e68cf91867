"""The paper's figures 3 and 5 as matplotlib figures: zeros in the gradient by kind of layer, and along the depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..analysis import LayerGradient
from ..sweep.figure import COLOURS
from ..sweep.sparsity import Measured
from .figures import POOLINGS, save, subject, title_of
from .published import ZEROS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = {  # of layers, in the order of bars, by the names that are shown
    "convolution": ("convolution",),
    "batch norm": ("batch norm",),
    "IF neuron": ("neuron",),
    "junction": ("junction",),
    "pooling": ("max pool", "average pool"),
}


def figures(found: Sequence[Measured]) -> dict[str, Figure]:
    """Return, for each data set and network, a figure by kind of layer and one along the depth; seeds are averaged."""
    made = {}
    for key in dict.fromkeys(subject(one.network) for one in found):
        pools: dict[str, list[list[LayerGradient]]] = {}
        for network, sparsity in found:
            if subject(network) == key:
                pools.setdefault(network.pool, []).append([row for row in sparsity if row.t is None])
        means = {pool: _over_seeds(tables) for pool, tables in pools.items()}
        name, title = "-".join(key), title_of(key)
        made[f"sparsity-by-kind-{name}"] = _by_kind(means, title)
        made[f"sparsity-along-depth-{name}"] = _along_depth(means, title)
    return made


def write(found: Sequence[Measured], folder: Path) -> list[Path]:
    """Draw all figures into a folder; see figures.save."""
    return save(figures(found), folder)


def _by_kind(pools: dict[str, list[LayerGradient]], title: str) -> Figure:
    """Bars: zeros at input and output, the mean over the layers of a kind; the paper's own numbers as diamonds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    there = {row.kind for rows in pools.values() for row in rows}
    kinds = {kind: names for kind, names in _KINDS.items() if there.intersection(names)}
    places, width = {"input x": 0, **{kind: i + 1 for i, kind in enumerate(kinds)}}, 0.8 / len(pools)
    for i, (pool, rows) in enumerate(pools.items()):
        at = [place + (i - (len(pools) - 1) / 2) * width for place in places.values()]
        shares = [_of_input(rows), *(_of_kind(rows, names) for names in kinds.values())]
        zeros, structural = zip(*shares, strict=True)
        bars = axes.bar(at, zeros, 0.92 * width, color=COLOURS[pool], label=POOLINGS[pool])
        axes.bar_label(bars, [f"{share:.1f}" for share in zeros], padding=2, fontsize="small")
        underflow = [share - rest for share, rest in zip(zeros, structural, strict=True)]
        if max(underflow) > 0.1:
            look = {"color": "none", "edgecolor": "white", "hatch": "////", "linewidth": 0}
            axes.bar(at, underflow, 0.92 * width, structural, label=f"of which underflow ({pool})", **look)
        paper = [(x, ZEROS[pool][kind]) for kind, x in zip(places, at, strict=True) if kind in ZEROS.get(pool, ())]
        if paper:
            look = {"marker": "D", "color": "white", "edgecolors": "black", "zorder": 3, "s": 36}
            axes.scatter(*zip(*paper, strict=True), **look, label="the paper" if i == 0 else None)
            for x, share in paper:
                look = {"fontsize": "small", "bbox": {"boxstyle": "round,pad=0.15", "color": "white", "alpha": 0.8}}
                axes.annotate(f"{share:g}", (x, share), (7, -3), textcoords="offset points", **look)
    axes.set_xticks(list(places.values()), list(places))
    axes.set(ylabel="exact zeros (%), mean of input and output", title=f"{title}: zeros in the gradient")
    axes.set_ylim(0, max(45.0, 1.12 * axes.get_ylim()[1]))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize="small")
    return figure


def _along_depth(pools: dict[str, list[LayerGradient]], title: str) -> Figure:
    """Lines: zeros at the input of every layer, in the order of calls, and the norm there; shortcuts as hollow dots."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 5.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for pool, rows in pools.items():
        layers = [row for row in rows if row.kind != "network"]
        places, main = [], 0
        for row in layers:
            places.append(main)
            main += not _is_shortcut(row)  # a shortcut's layers share the place of the layer that follows
        for axes, values in (
            (above, [100 * row.zeros_in for row in layers]),
            (below, [row.l2_in or math.nan for row in layers]),
        ):
            for of_shortcut, line in ((False, "-o"), (True, "o")):
                some = [i for i, row in enumerate(layers) if _is_shortcut(row) == of_shortcut]
                look = {"color": COLOURS[pool], "markersize": 3.5, "fillstyle": "none" if of_shortcut else "full"}
                look |= {"label": None if of_shortcut else POOLINGS[pool], "linewidth": 1.2}
                axes.plot([places[i] for i in some], [values[i] for i in some], line, **look)
    stages: dict[str, int] = {}
    for row, place in zip(layers, places, strict=True):
        stage = row.layer.partition(".")[0]
        stages.setdefault(stage if stage.startswith("layer") or stage == "fc" else "stem", place)
    for axes in (above, below):
        for place in list(stages.values())[1:]:
            axes.axvline(place - 0.5, color="0.8", linewidth=0.8, zorder=0)
        axes.grid(axis="y", alpha=0.3)
    below.set_xticks(list(stages.values()), list(stages))
    above.set(ylabel="zeros at the input (%)", title=f"{title}: along the depth, from the stem to the logits")
    above.set_ylim(-3, 103)
    below.set(ylabel="L2 norm of a sample", yscale="log")
    above.plot([], [], "o", fillstyle="none", color="0.4", markersize=3.5, label="on a shortcut")
    above.legend(fontsize="small")
    return figure


def _is_shortcut(row: LayerGradient) -> bool:
    return "downsample" in row.layer


def _of_input(rows: Sequence[LayerGradient]) -> tuple[float, float]:
    """Return zeros, and those that are no underflow, in percent, of the gradient at x."""
    network = next(row for row in rows if row.kind == "network")
    return 100 * network.zeros_in, 100 * network.structural_in


def _of_kind(rows: Sequence[LayerGradient], kinds: Sequence[str]) -> tuple[float, float]:
    """Return the same of the layers of a kind: the mean over them, and over their inputs and outputs."""
    some = [row for row in rows if row.kind in kinds]
    zeros = [share for row in some for share in (row.zeros_in, row.zeros_out)]
    structural = [share for row in some for share in (row.structural_in, row.structural_out)]
    return tuple(100 * sum(shares) / len(shares) for shares in (zeros, structural))


def _over_seeds(tables: Sequence[Sequence[LayerGradient]]) -> list[LayerGradient]:
    """Return the mean of several networks' rows, layer by layer."""
    found = []
    for rows in zip(*tables, strict=True):
        numbers = zip(*(row[3:] for row in rows), strict=True)
        found.append(LayerGradient(*rows[0][:3], *(sum(column) / len(rows) for column in numbers)))
    return found
