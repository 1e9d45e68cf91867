"""The table that `gradient_sparsity` returns: a row per layer, printed, grouped by kind, or as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from typing import NamedTuple


class LayerGradient(NamedTuple):
    """The loss gradient at a layer's input and output: a row of `gradient_sparsity`.

    Shares go from 0 to 1; norms are those of one sample's gradient, averaged over samples and passes. A layer with two
    inputs (a junction) has both in its "in". NaN: the gradient does not go there, or knows no time steps.

    Attributes:
        layer: its name in the network; "network" for the whole, whose input is x and whose output are the logits.
        kind: "convolution", "batch norm", "neuron", "max pool", "average pool", "junction", "linear", ...
        t: time step, 0 to T - 1; None for all of them together.
        zeros_in, zeros_out: share of exact zeros.
        structural_in, structural_out: share of zeros that are none of float32's range: they stay where the same pass
            is made with larger numbers. The rest of zeros_in and zeros_out are underflow.
        l1_in, l1_out, l2_in, l2_out, linf_in, linf_out: norms.
    """

    layer: str
    kind: str
    t: int | None
    zeros_in: float
    zeros_out: float
    structural_in: float
    structural_out: float
    l1_in: float
    l1_out: float
    l2_in: float
    l2_out: float
    linf_in: float
    linf_out: float

    @property
    def zeros(self) -> float:
        """Mean of the shares at input and output, where there are both."""
        there = [share for share in (self.zeros_in, self.zeros_out) if not math.isnan(share)]
        return sum(there) / len(there) if there else math.nan


class Sparsity(list):
    """Rows of `gradient_sparsity`, a list of LayerGradient; as text a table.

    Attributes:
        samples: gradients of one sample that were averaged: images times the steps of the attack.
        passes: backward passes that were seen.
    """

    def __init__(self, rows: Iterable[LayerGradient] = (), samples: int = 0, passes: int = 0):
        super().__init__(rows)
        self.samples, self.passes = samples, passes

    def by_kind(self) -> Sparsity:
        """Return a row for each kind of layer (and time step): the plain mean over its layers, as in the paper."""
        groups: dict[tuple, list[LayerGradient]] = {}
        for row in self:
            groups.setdefault((row.kind, row.t), []).append(row)
        rows = []
        for (kind, t), some in groups.items():
            layers = "1 layer" if len(some) == 1 else f"{len(some)} layers"
            rows.append(
                LayerGradient(layers, kind, t, *(_mean(column) for column in zip(*(r[3:] for r in some), strict=True)))
            )
        return Sparsity(rows, self.samples, self.passes)

    def csv(self) -> str:
        """Return all columns as CSV with a header; shares from 0 to 1, unknown values empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(LayerGradient._fields)
        writer.writerows(["" if _is_unknown(value) else value for value in row] for row in self)
        return text.getvalue()

    def __str__(self) -> str:
        """Return a table: zeros in percent, the part of them that is underflow, and the L2 norm."""
        timed = any(row.t is not None for row in self)
        head = ("layer", "kind", "t", "zeros in %", "out %", "underflow in %", "out %", "L2 in", "out")
        lines = [line if timed else (*line[:2], *line[3:]) for line in (head, *map(_cells, self))]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = []
        for line in lines:
            words = [cell.ljust(width) for cell, width in zip(line[:2], widths, strict=False)]
            numbers = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
            text.append("  ".join([*words, *numbers]).rstrip())
        return "\n".join([*text, f"mean over {self.samples} gradients in {self.passes} passes"])


def _cells(row: LayerGradient) -> tuple[str, ...]:
    shares = (row.zeros_in, row.zeros_out, row.zeros_in - row.structural_in, row.zeros_out - row.structural_out)
    norms = (_shown(norm, ".3g") for norm in (row.l2_in, row.l2_out))
    step = "all" if row.t is None else str(row.t)
    return (row.layer, row.kind, step, *(_shown(100 * share, ".2f") for share in shares), *norms)


def _mean(column: tuple[float, ...]) -> float:
    there = [value for value in column if not math.isnan(value)]
    return sum(there) / len(there) if there else math.nan


def _is_unknown(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _shown(value: float, how: str) -> str:
    text = "" if math.isnan(value) else format(value, how)
    return text.removeprefix("-") if text and float(text) == 0 else text
