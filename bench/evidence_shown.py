"""Numbers over seeds for the eye: a table for a terminal, the same in Markdown, and a figure.

Numbers are `OverSeeds` by (protocol, network, column); a table has a part for each protocol, a line for each network.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

from .over_seeds import OverSeeds

Numbers = Mapping[tuple[str, str, str], OverSeeds]
PROTOCOLS = {
    "drift": 'the paper\'s protocol, bn="drift"',
    "frozen": 'frozen statistics, bn="frozen"',
    "drift - frozen": "by how much the paper's protocol flatters",
}
_NAME, _NUMBER = 26, 10  # letters of the columns: 79 in all with five numbers
_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple")


def text(title: str, numbers: Numbers, signed: bool = False) -> str:
    """Return a table of at most 80 letters: means, and under each the least and the most over seeds.

    Args:
        title: its first line.
        numbers: what it shows.
        signed: they are differences: written with their sign, and a star where they differ from 0 (OverSeeds.differs).
    """
    lines = [title]
    for protocol, networks, columns in _parts(numbers):
        lines += ["", f"{PROTOCOLS[protocol]}:", " " * _NAME + "".join(f"{column:>{_NUMBER}}" for column in columns)]
        for network in networks:
            cells = [numbers[protocol, network, column] for column in columns]
            lines.append(f"{network:<{_NAME}}" + "".join(f"{_mean(one, signed):>{_NUMBER}}" for one in cells))
            lines.append(" " * _NAME + "".join(f"{_range(one, signed, 0, '..'):>{_NUMBER}}" for one in cells))
    return "\n".join(lines)


def markdown(title: str, numbers: Numbers, signed: bool = False) -> str:
    """Return a table in Markdown for each protocol: mean ± standard error over seeds (least to most)."""
    made = []
    for protocol, networks, columns in _parts(numbers):
        lines = [
            f"{title}, {PROTOCOLS[protocol]}:",
            "",
            f"| | {' | '.join(columns)} |",
            "|---" * (1 + len(columns)) + "|",
        ]
        for network in networks:
            cells = [numbers[protocol, network, column] for column in columns]
            lines.append(f"| {network} | {' | '.join(_whole(one, signed) for one in cells)} |")
        made.append("\n".join(lines))
    return "\n\n".join(made)


def png(numbers: Numbers, about: str) -> bytes:
    """Return a figure as PNG: a panel for each protocol, a dot for each seed, a dash at their mean; `about` beneath."""
    from matplotlib.figure import Figure

    parts = _parts(numbers)
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for panel, (protocol, networks, columns) in zip(panels, parts, strict=True):
        for i, (network, colour) in enumerate(zip(networks, _COLOURS, strict=False)):
            places = [place + 0.16 * (i - (len(networks) - 1) / 2) for place in range(len(columns))]
            for place, column in zip(places, columns, strict=True):
                values = numbers[protocol, network, column].values
                panel.plot([place] * len(values), values, "o", color=colour, markersize=4, alpha=0.6)
            means = [numbers[protocol, network, column].mean for column in columns]
            panel.plot(places, means, "_", color=colour, markersize=11, markeredgewidth=2, label=network)
        for place in range(1, len(columns)):
            panel.axvline(place - 0.5, color="0.85", linewidth=0.8)
        panel.set_xticks(range(len(columns)), columns)
        panel.set_title(PROTOCOLS[protocol], fontsize="medium")
        panel.grid(axis="y", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(top=102)
    panels[0].set_ylabel("accuracy (%)")
    handles = panels[0].get_legend_handles_labels()
    where = {"loc": "outside lower center", "ncols": len(_COLOURS), "frameon": False, "fontsize": "small"}
    legend = figure.legend(*handles, **where, title=about, title_fontsize="small")
    legend.get_title().set_color("0.35")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    return content.getvalue()


def _parts(numbers: Numbers) -> list[tuple[str, list[str], list[str]]]:
    """Return each protocol with its networks and columns, in their order."""
    found = []
    for protocol in dict.fromkeys(protocol for protocol, _, _ in numbers):
        own = [key for key in numbers if key[0] == protocol]
        found.append((protocol, *(list(dict.fromkeys(key[i] for key in own)) for i in (1, 2))))
    return found


def _whole(one: OverSeeds, signed: bool) -> str:
    mean = _mean(one, signed).strip()
    return mean if one.alone else f"{mean} ± {one.standard_error:.1f} ({_range(one, signed, 1, ' to ')})"


def _mean(one: OverSeeds, signed: bool) -> str:
    return f"{one.mean:+.1f}{'*' if one.differs else ' '}" if signed else f"{one.mean:.1f}"


def _range(one: OverSeeds, signed: bool, digits: int, to: str) -> str:
    return to.join(f"{end:{'+' if signed else ''}.{digits}f}" for end in (min(one.values), max(one.values)))
