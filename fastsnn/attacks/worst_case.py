"""The worst of several attacks for each sample: they run one after the other, each on the samples that are left.

A sample that an attack has fooled is taken out of the batch (so what comes later costs less), and a table says what
each attack added. Every result is looked at once more, with the network's own forward pass, before it counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from ..ops.attack_step import default_batch_axis
from .ascend import budgets_of
from .draws import Generators
from .gradient import check_input
from .independence import draws_for_each
from .input_gradient import input_gradient
from .objectives import misclassified


class Part(NamedTuple):
    """One attack of several.

    Attributes:
        attack: its name in the table.
        surrogate: what it takes for the gradient of a spike; None for the network's own, or where it takes no gradient.
        run: from network, x, y, eps [B] and generators to adversarial input like x.
    """

    attack: str
    surrogate: str | None
    run: Callable[..., torch.Tensor]


class Added(NamedTuple):
    """What an attack added: a row of the table.

    Attributes:
        attack: its name; "none" for the input as it is.
        surrogate: what it took for the gradient of a spike; None for the network's own, or where it takes no gradient.
        tried: samples that were left when it began.
        fooled: how many of those it fooled.
        seconds: it took, its result's last look included.
    """

    attack: str
    surrogate: str | None
    tried: int
    fooled: int
    seconds: float


class Additions(list):
    """Rows of a worst case, a list of Added; as text a table."""

    @property
    def accuracy(self) -> float:
        """Share of samples that every attack left right, 0 to 1; NaN without samples."""
        tried = self[0].tried if self else 0
        return (tried - sum(row.fooled for row in self)) / tried if tried else float("nan")

    def by_attack(self) -> Additions:
        """Return a row for each attack, whatever its surrogates: tried by the first of them, fooled by all together."""
        groups: dict[str, list[Added]] = {}
        for row in self:
            groups.setdefault(row.attack, []).append(row)
        return Additions(_together(attack, rows) for attack, rows in groups.items())

    def plus(self, other: Additions) -> Additions:
        """Return the table of two batches that went through the same attacks."""
        pairs = zip(self, other, strict=True)
        return Additions(Added(*a[:2], *(m + n for m, n in zip(a[2:], b[2:], strict=True))) for a, b in pairs)

    def __str__(self) -> str:
        """Return a table: attack, surrogate, how many it tried, fooled, and left right of all, and seconds."""
        lines, total, left = [("attack", "surrogate", "tried", "fooled", "left %", "s")], 0, 0
        for i, row in enumerate(self):
            total, left = (row.tried, row.tried) if i == 0 else (total, left)
            left -= row.fooled
            share = f"{100 * left / total:.1f}" if total else ""
            lines.append(
                (row.attack, row.surrogate or "", str(row.tried), str(row.fooled), share, f"{row.seconds:.1f}")
            )
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = []
        for line in lines:
            words = [cell.ljust(width) for cell, width in zip(line[:2], widths, strict=False)]
            numbers = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
            text.append("  ".join([*words, *numbers]))
        return "\n".join(text)


def _together(attack, rows):
    surrogate = rows[0].surrogate if len(rows) == 1 else f"{len(rows)} of them"
    fooled, seconds = sum(row.fooled for row in rows), sum(row.seconds for row in rows)
    return Added(attack, surrogate, rows[0].tried, fooled, seconds)


def worst_case(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    parts: Iterable[Part],
    *,
    eps: float | torch.Tensor,
    precision: str,
    engine: str | None,
    generator: Generators,
) -> tuple[torch.Tensor, Additions]:
    """Run attacks one after the other, each on the samples that none before it has fooled.

    Args:
        network: from x to logits [B, classes]; norms use running statistics, so that samples may leave.
        x: encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1].
        y: labels [B].
        parts: the attacks; each gets x, y, eps [B] and generators of the samples that are left.
        eps: budget, at least 0: a number, or one per sample [B].
        precision: of the looks; see nn.precision.
        engine: of the looks; see input_gradient.
        generator: of all random numbers; a list holds one for each sample.

    Returns:
        Input like x, adversarial where an attack was successful and else x itself; and the table.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
    """
    check_input(x, y)
    if isinstance(eps, (list, tuple)):
        raise TypeError(f"eps is {eps!r}, expected one budget: a number, or a tensor with one for each sample.")
    (budget,) = budgets_of(eps, x)
    if draws_for_each(network):
        raise ValueError(
            "network has a RateEncoder with a generator for each image, but images that are fooled leave the batch; "
            "give the encoder one generator, or None."
        )
    axis, adv = default_batch_axis(x), x.detach().clone()
    rows, left = Additions(), torch.arange(len(y), device=y.device)

    def fooled(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        labels = labels.to(torch.int64, copy=True)
        with input_gradient(network, precision=precision, engine=engine) as source:
            return misclassified(source.logits(inputs, labels), labels)

    for part in (Part("none", None, lambda network, x, y, eps, generator: x), *parts):
        since, tried = time.perf_counter(), len(left)
        if tried:
            origin, labels = x.detach().index_select(axis, left), y[left]
            found = part.run(network, origin, labels, budget[left], _of(generator, left, len(y)))
            wrong = fooled(found, labels)
            adv.index_copy_(axis, left[wrong], found.index_select(axis, wrong.nonzero().squeeze(1)))
            left = left[~wrong]
        rows.append(Added(part.attack, part.surrogate, tried, tried - len(left), time.perf_counter() - since))
    return adv, rows


def _of(generator, left: torch.Tensor, samples: int):
    if not isinstance(generator, Sequence):
        return generator
    if len(generator) != samples:
        raise ValueError(f"generator is a list of {len(generator)}, expected {samples}: one for each sample.")
    return [generator[i] for i in left.tolist()]
