"""The founding paper's theorems 4.1 to 4.4 as matplotlib figures, and what zeros are due to, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..analysis import GradientSNR
from ..sweep.figure import COLOURS
from ..sweep.theorems import Measured
from .figures import POOLINGS, save, subject, title_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOOKS = (  # of the lines of causes: what is shown, its share, and how
    ("zeros as they are", lambda row: row.zeros, {"color": "black", "marker": "o", "markersize": 5}),
    (
        "without natural causes",
        lambda row: row.zeros - row.natural,
        {"color": "tab:purple", "marker": "s", "markersize": 3, "linestyle": ":"},
    ),
    (
        "without architectural causes",
        lambda row: row.zeros - row.architectural,
        {"color": "tab:green", "marker": "x", "markersize": 4, "linestyle": "--"},
    ),
)


def figures(found: Sequence[Measured]) -> dict[str, Figure]:
    """Return, for each data set and network, a figure per theorem and one of causes; seeds are shown side by side."""
    made = {}
    for key in dict.fromkeys(subject(one.network) for one in found):
        some = [one for one in found if subject(one.network) == key]
        for name, draw in _FIGURES.items():
            made[f"{name}-{'-'.join(key)}"] = draw(some, title_of(key))
    return made


def write(found: Sequence[Measured], folder: Path) -> list[Path]:
    """Draw all figures into a folder; see figures.save."""
    return save(figures(found), folder)


def _vulnerability(found: Sequence[Measured], title: str) -> Figure:
    """4.1, image by image: measured against first order, both vulnerabilities and their ratio."""
    figure, axes = _axes(1, 3, (10.4, 3.9))
    quantities = (
        ("rho_rand", lambda v: v.random_first_order, lambda v: v.random),
        ("rho_adv", lambda v: v.adversarial_first_order, lambda v: v.adversarial),
        ("rho_adv / rho_rand", lambda v: v.ratio_first_order, lambda v: v.ratio),
    )
    for place, (name, first_order, measured) in zip(axes, quantities, strict=True):
        for one, look in _looks(found):
            v = one.vulnerability
            place.scatter(first_order(v), measured(v), s=12, alpha=0.7, **look)
        place.set(xscale="log", yscale="log", xlabel="to first order", title=name)
        low, high = min(place.get_xlim()[0], place.get_ylim()[0]), max(place.get_xlim()[1], place.get_ylim()[1])
        place.plot((low, high), (low, high), color="0.5", linewidth=1, label="equal", zorder=0)
        place.grid(alpha=0.3)
    axes[0].set_ylabel("measured")
    axes[2].axhline(3, color="0.5", linewidth=1, linestyle=":", label="the least by theorem: 3")
    bound = max(one.vulnerability.bound.max().item() for one in found)
    axes[2].axvline(bound, color="0.5", linewidth=1, linestyle="--", label="its bound 3 |g|_0")
    axes[2].legend(fontsize="small")
    axes[0].legend(fontsize="small")
    figure.suptitle(f"{title}: theorem 4.1, a dot per image")
    return figure


def _snr(found: Sequence[Measured], title: str) -> Figure:
    """4.2: signal and noise over the number of steps, and their ratio beside what independent steps would give."""
    figure, (left, right) = _axes(1, 2, (9.2, 4.2))
    lowest = highest = 0.0
    for one, look in _looks(found):
        for line, how, rows in _groups(one):
            steps, label = [row.T for row in rows], look["label"] and f"{look['label']}, {how}"
            style = {"color": look["color"], "markersize": 4}
            left.plot(steps, [row.noise for row in rows], line, label=label, **style)
            signal = [row.signal if row.signal > 0 else math.nan for row in rows]
            left.plot(steps, signal, line, fillstyle="none", linewidth=0.8, **style)
            right.plot(steps, [row.snr for row in rows], line, **style)
            right.plot(steps, [max(0.0, rows[0].snr) * T / rows[0].T for T in steps], linewidth=0.7, color="0.6")
            lowest, highest = (f((value, *(row.snr for row in rows))) for f, value in ((min, lowest), (max, highest)))
    images = len(found[0].vulnerability.random)
    right.axhspan(-1 / images, 1 / images, color="0.9", zorder=0, label=f"1/{images}: the noise of a mean of {images}")
    right.plot([], [], color="0.6", linewidth=0.7, label="SNR(1) * T: independent steps")
    right.set_ylim(lowest - 0.03 * (highest - lowest) - 1 / images, 1.35 * max(highest, 1 / images))
    left.set(yscale="log", ylabel="full: noise; hollow: signal, where above 0")
    right.set_ylabel("SNR of the first layer's weight gradient")
    for place in (left, right):
        place.set_xscale("log", base=2)
        place.set_xticks(*(2 * [sorted({row.snr.T for row in found[0].extended})]))
        place.set(xlabel="time steps T")
        place.grid(alpha=0.3)
        place.legend(fontsize="small", loc="upper left" if place is left else "upper right")
    figure.suptitle(f"{title}: theorem 4.2")
    return figure


def _groups(one: Measured) -> list[tuple[str, str, list[GradientSNR]]]:
    """Return a network's lines of 4.2: how drawn, what, and its numbers; a second where more networks were trained."""
    whole = max(row.trained_with for row in one.extended)
    own = sorted(row.snr for row in one.extended if row.trained_with == row.snr.T)
    groups = [("-o", f"trained with T = {whole}", [row.snr for row in one.extended if row.trained_with == whole])]
    return groups + ([("--s", "with each T", own)] if len(own) > 1 else [])


def _shared_zeros(found: Sequence[Measured], title: str) -> Figure:
    """4.3: zeros in weight gradients layer by layer, and their correlation with those at x."""
    figure, (above, below) = _axes(2, 1, (8.6, 5.2), sharex=True)
    for one, look in _looks(found):
        places = range(len(one.shared))
        above.plot(places, [100 * row.zeros for row in one.shared], "-o", markersize=3.5, **look)
        at_x = 100 * one.shared[0].zeros_at_input
        above.axhline(at_x, color=look["color"], linestyle=":", linewidth=1)
        below.plot(places, [row.correlation for row in one.shared], "o", markersize=4, color=look["color"])
    above.plot([], [], ":", color="0.5", label="the same at x")
    above.set(ylabel="zeros in a weight gradient (%)", ylim=(-3, 103))
    below.set(ylabel="correlation with zeros at x", ylim=(-1.05, 1.05))
    below.axhline(0, color="0.5", linewidth=0.8)
    _name_stages(below, [row.layer for row in found[0].shared])
    for place in (above, below):
        place.grid(axis="y", alpha=0.3)
    above.legend(fontsize="small")
    figure.suptitle(f"{title}: theorem 4.3, from the stem to the logits")
    return figure


def _densities(found: Sequence[Measured], title: str) -> Figure:
    """4.4, image by image: the first weight gradient's density over the input gradient's, and the bound."""
    figure, axes = _axes(1, 1, (5.6, 4.2))
    for one, look in _looks(found):
        axes.scatter(one.densities.at_input, one.densities.at_weight, s=14, alpha=0.7, **look)
    factor = found[0].densities.factor
    places = torch.logspace(-4, 0, 101, dtype=torch.float64)
    axes.plot(places, (factor * places).clamp(max=1), color="0.4", linewidth=1, label=f"bound: {factor:,.0f} times")
    axes.set(xscale="log", yscale="log", xlabel="density of the gradient at x")
    axes.set(ylabel="density of the first weight gradient", title=f"{title}: theorem 4.4")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _causes(found: Sequence[Measured], title: str) -> Figure:
    """Zeros at every layer's input, as they are and with groups of causes switched off: a panel for each network."""
    figure, axes = _axes(len(found), 1, (8.6, 1.0 + 2.2 * len(found)), sharex=True, squeeze=False)
    for (place,), one in zip(axes, found, strict=True):
        rows = [row for row in one.causes if row.kind != "network"]
        main = [i for i, row in enumerate(rows) if "downsample" not in row.layer]
        beside = [i for i in range(len(rows)) if i not in main]
        for label, share, look in _LOOKS:
            shares = [100 * share(row) for row in rows]
            place.plot(main, [shares[i] for i in main], label=label, **look)
            size = {"markersize": look["markersize"], "color": look["color"]}
            place.plot(beside, [shares[i] for i in beside], look["marker"], fillstyle="none", **size)
        seed = f", seed {one.network.seed}" if len({other.network.seed for other in found}) > 1 else ""
        place.set(ylabel="zeros at the input (%)", ylim=(-5, 103), title=POOLINGS[one.network.pool] + seed)
        place.grid(axis="y", alpha=0.3)
        _name_stages(place, [row.layer for row in rows])
    axes[0, 0].plot([], [], "o", color="0.4", fillstyle="none", markersize=5, label="hollow: on a shortcut")
    axes[0, 0].legend(fontsize="small", loc="center")
    figure.suptitle(f"{title}: what zeros are due to")
    return figure


_FIGURES: dict[str, Callable[[Sequence[Measured], str], Figure]] = {
    "theorem-4.1": _vulnerability,
    "theorem-4.2": _snr,
    "theorem-4.3": _shared_zeros,
    "theorem-4.4": _densities,
    "causes": _causes,
}


def _axes(rows: int, columns: int, size: tuple[float, float], **how):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, **how)


def _looks(found: Sequence[Measured]):
    """Yield every network with its pooling's colour, and that pooling as a label the first time."""
    named = set()
    for one in found:
        pool = one.network.pool
        yield one, {"color": COLOURS[pool], "label": None if pool in named else POOLINGS[pool]}
        named.add(pool)


def _name_stages(axes, layers: Sequence[str]) -> None:
    """Put a stage's name where its first layer stands."""
    stages: dict[str, int] = {}
    for place, layer in enumerate(layers):
        stage = layer.partition(".")[0]
        stages.setdefault(stage if stage.startswith("layer") or stage == "fc" else "stem", place)
    axes.set_xticks(list(stages.values()), list(stages))
    for label in axes.get_xticklabels()[:1]:  # a panel above others has no labels
        label.set_horizontalalignment("right")  # it would run into the next
    for place in list(stages.values())[1:]:
        axes.axvline(place - 0.5, color="0.8", linewidth=0.8, zorder=0)
