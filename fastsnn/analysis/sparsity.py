"""Gradient sparsity, layer by layer: exact zeros and norms of the loss gradient, as in the paper's figures 3 and 5.

    zeros(layer, side) = share of numbers that are exactly 0 in dL/d(input) or dL/d(output) of the layer

over batches, time steps, and the steps of an attack if one is made.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from ..attacks.gradient import check_input, input_gradient
from ..engine import Prepared
from ..ops import check
from .tally import Tally
from .watching import Watched, watching

Batch = tuple[torch.Tensor, torch.Tensor]


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
        """Return a table: zeros in percent, the part that is underflow, and the L2 norm."""
        timed = any(row.t is not None for row in self)
        head = (
            "layer",
            "kind",
            *(("t",) if timed else ()),
            "zeros in %",
            "out %",
            "underflow in %",
            "out %",
            "L2 in",
            "out",
        )
        lines = []
        for row in self:
            shares = (row.zeros_in, row.zeros_out, row.zeros_in - row.structural_in, row.zeros_out - row.structural_out)
            numbers = [_shown(100 * share, ".2f") for share in shares] + [
                _shown(n, ".3g") for n in (row.l2_in, row.l2_out)
            ]
            step = ("all" if row.t is None else str(row.t),) if timed else ()
            lines.append((row.layer, row.kind, *step, *numbers))
        widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
        left = 3 if timed else 2
        text = [
            "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
            for line in (head, *lines)
        ]
        return "\n".join(
            [*(line.rstrip() for line in text), f"mean over {self.samples} gradients in {self.passes} passes"]
        )


def gradient_sparsity(
    network: nn.Module,
    x: torch.Tensor | Iterable[Batch],
    y: torch.Tensor | None = None,
    *,
    attack: Callable[[torch.Tensor, torch.Tensor], object] | None = None,
    per_step: bool = False,
    underflow: bool = True,
    bn: str = "frozen",
    precision: str = "fp32",
    on_batch: Callable[[int], None] | None = None,
) -> Sparsity:
    """Return the zeros and norms of the loss gradient at the input and output of every layer (the paper's figure 3).

    The gradient is that of the summed cross-entropy; the layers run as modules of their own, also those that the engine
    would fuse, and are those that plain full backward hooks would see. What goes in at a place from which two layers
    read is told apart: a layer's row holds what comes back through that layer.

    Underflow is told from structure by repeating the backward pass on the same graph, with each sample's gradient at
    the logits taken from a softmax in float64 and scaled by a power of two to about 2^63: nothing is rounded otherwise,
    and a number must now be 2^-212 of the largest at the logits to vanish (2^-149 in absolute terms before).

    Args:
        network: from encoded input or images to logits [B, classes]; left as it was found, as by an attack.
        x: encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1]; or an iterable of batches (x, y),
            read once, whose memory is given back batch by batch.
        y: labels [B]; None with an iterable.
        attack: called with x and y; all backward passes that it makes through `network` are averaged. E.g.
            attacks.PGD(network, eps=6/255, alpha=0.01, steps=7), or another library's; its bn and precision are its own
            affair, and norms are those of its loss (a mean over the batch divides them by B). None takes the gradient
            at x itself.
        per_step: also give a row for each time step.
        underflow: tell underflow from structural zeros by a second backward pass; False leaves NaN in those columns.
        bn: without an attack, "frozen", "batch" or "drift"; see attacks.fgsm.
        precision: without an attack, "reference" or "fp32"; see nn.precision. "fast" rounds gradients of fused layers,
            of which there are none here.
        on_batch: called after each batch with its number of samples.

    Returns:
        Rows in the order in which layers are called; with per_step, a layer's time steps follow its row.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it. Also if the attack makes no backward pass
            through the network, or if gradients grow from the logits to a layer by more than 2^64.
    """
    network = network.network if isinstance(network, Prepared) else network
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"network is of type {type(network).__name__}, expected a torch.nn.Module, whose layers are watched."
        )
    check.one_of("precision", precision, ("reference", "fp32"))
    with watching(network, underflow=underflow) as watched:
        for batch_x, batch_y in _batches(x, y):
            check_input(batch_x, batch_y)
            if not batch_y.numel():
                raise ValueError(f"x has shape {list(batch_x.shape)}: there is no sample in it.")
            watched.labelled(batch_y)
            before = watched.passes
            if attack is not None:
                attack(batch_x, batch_y)
            else:
                with input_gradient(network, bn=bn, precision=precision, engine=None) as gradient:
                    gradient(batch_x, batch_y.to(torch.int64, copy=True))
            if watched.passes == before:
                raise ValueError(
                    "attack made no backward pass through network; expected an attack on this very module."
                )
            if on_batch is not None:
                on_batch(len(batch_y))
    if watched.passes == 0:
        raise ValueError("x holds no batch, expected at least one.")
    if watched.finite is not None and not bool(watched.finite):
        raise ValueError(
            "gradients grow by more than 2^64 from the logits to a layer; expected less, or underflow=False."
        )
    return Sparsity(_rows(watched, per_step), watched.samples, watched.passes)


def _batches(x: torch.Tensor | Iterable[Batch], y: torch.Tensor | None) -> Iterator[Batch]:
    if isinstance(x, torch.Tensor):
        if y is None:
            raise ValueError("y is None, expected labels [B] with a tensor x.")
        yield x, y
        return
    if y is not None:
        raise ValueError("y is given with an iterable x, expected None: every batch has its own labels.")
    yield from x


def _rows(watched: Watched, per_step: bool) -> Iterator[LayerGradient]:
    for layer, (at_input, at_output) in watched.sides.items():
        sides = [_columns(tally) for tally in (at_input, at_output)]
        for t in (None, *(range(watched.T) if per_step else ())):
            pairs = [side[-1 if t is None else t] for side in sides]
            yield LayerGradient(
                layer, watched.kinds[layer], t, *(value for both in zip(*pairs, strict=True) for value in both)
            )


def _columns(tally: Tally) -> list[tuple[float, ...]]:
    """Return zeros, structural zeros, L1, L2 and Linf of one side, for every time step and for all."""
    if not tally.samples:
        return [(math.nan,) * 5] * (tally.T + 1)
    zeros = (tally.zeros.double() / tally.numbers).tolist()
    structural = (
        (tally.structural.double() / tally.retried).tolist()
        if torch.is_tensor(tally.retried)
        else [math.nan] * len(zeros)
    )
    norms = [norm.tolist() for norm in (tally.norms / tally.samples).where(tally.numbers > 0, math.nan)]
    return list(zip(zeros, structural, *norms, strict=True))


def _mean(column: tuple[float, ...]) -> float:
    there = [value for value in column if not math.isnan(value)]
    return sum(there) / len(there) if there else math.nan


def _is_unknown(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _shown(value: float, how: str) -> str:
    text = "" if math.isnan(value) else format(value, how)
    return text.removeprefix("-") if text and float(text) == 0 else text
