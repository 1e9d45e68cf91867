"""Square (Andriushchenko et al. 2020, algorithms 1 and 2, Linf): random search that looks at logits only.

A candidate sets a square of the best point so far to the ball's faces, one side for each channel; it is kept where it
lessens the margin. The square's area falls from p_init of the picture to a 512th of that over the queries. All points
ever tried lie on faces of the ball cut with [0, 1], so the budget holds exactly.

Encoded input has T * C channels: a square lies at the same place in all steps, on a side of its own in each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ..ops import check
from ..ops.attack_step import default_batch_axis
from .balls import BALLS
from .draws import Generators, numbers
from .gradient import InputGradient, check_input
from .objectives import margin
from .rows import beside
from .until_fooled import Attempt, until_fooled

# of 10000 queries, after which the area is halved once more (Andriushchenko et al. 2020, section 4)
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def square(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float | torch.Tensor | Sequence[float | torch.Tensor],
    n_queries: int = 5000,
    p_init: float = 0.8,
    bn: str = "frozen",
    precision: str = "fp32",
    engine: str | None = "auto",
    generator: Generators = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Square attack in the Linf ball (Andriushchenko et al. 2020): it needs no gradient, so none can be masked.

    What attacks share is described in fastsnn.attacks. What differs, or is this attack's own:

        eps: budget, at least 0: a number, or one per sample [B]; or a list of such, attacked one after the other with
            the same random numbers.
        n_queries: how often each sample may be looked at, at least 1, beside the look at x itself; 5000 as in
            AutoAttack. A sample that is fooled is looked at no more.
        p_init: the share of the picture that the first squares cover, above 0 and at most 1; 0.8 as in AutoAttack.
        bn: "frozen", "batch" or "drift"; see under_attack. Looks move no statistics.

    Returns:
        Input like x: the first point that was misclassified, where there was one; else x itself. |result - x| <= eps
        holds exactly; a list of such for a list of budgets.
    """
    check_input(x, y)
    if x.dim() < 4:
        raise ValueError(f"x has shape {list(x.shape)}, expected images [B, C, H, W] or encoded input [T, B, C, H, W].")
    check.integer("n_queries", n_queries, at_least=1)
    if check.number("p_init", p_init, above=0) > 1:
        raise ValueError(f"p_init is {p_init!r}, expected a share of the picture: at most 1.")

    def draw(x: torch.Tensor) -> torch.Tensor:
        """Return numbers in [0, 1): a side for every column of every channel, then place and sides of each square."""
        samples, channels = _planes(x).shape[:2]
        many = channels * x.shape[-1] + (n_queries - 1) * (2 + channels)
        return numbers(torch.rand, (samples, many), 0, generator, x.device)

    how = {"bn": bn, "precision": precision, "engine": engine}
    return until_fooled(
        network, x, y, _search(n_queries, p_init), eps=eps, draw=draw, losses=lambda _: [_margin], **how
    )


def _margin(logits):
    return margin


def side(query: int, n_queries: int, p_init: float, height: int, width: int) -> int:
    """Return the side of the square at a query, counted from 0."""
    share = p_init / 2 ** sum(int(query / n_queries * 10000) > after for after in _HALVED_AFTER)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


def _planes(x):
    """Return x with all of a sample's channels, of all steps, on one axis: [B, channels, H, W]."""
    return x.movedim(default_batch_axis(x), 0).flatten(1, -3)


def _search(n_queries, p_init):
    def climb(source: InputGradient, attempt: Attempt) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the last point kept for each sample, and whether it is misclassified."""
        origin, y, eps, noise = attempt
        axis = default_batch_axis(origin)
        lead = origin.movedim(axis, 0).shape[1:-2]
        centre = _planes(origin)
        height, width = centre.shape[-2:]
        low, high = (BALLS["linf"].face(centre, eps, way, 0) for way in (-1, 1))
        columns = centre.shape[1] * width
        stripes = noise[:, :columns].view(-1, centre.shape[1], 1, width)
        squares = noise[:, columns:].view(len(noise), n_queries - 1, 2 + centre.shape[1])
        side_columns = torch.arange(width, device=noise.device)
        side_rows = torch.arange(height, device=noise.device)[:, None]

        def ask(points: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = source.logits(points.unflatten(1, lead).movedim(0, axis), y)
            return source.objective.loss(logits, y), source.objective.reached(logits, y)

        best = torch.where(stripes < 0.5, low, high)
        lead_by, fooled = ask(best, y)
        best = best.contiguous()  # squares are written in place
        found, ever = torch.empty_like(best), torch.empty_like(fooled)
        ids = torch.arange(len(y), device=y.device)
        for query in range(1, n_queries):
            if source.may_leave and bool(fooled.any()):  # those are done
                found[ids], ever[ids] = best, fooled
                keep = (~fooled).nonzero().squeeze(1)
                state = (best, low, high, squares, lead_by, fooled, y, ids)
                best, low, high, squares, lead_by, fooled, y, ids = (tensor[keep] for tensor in state)
            if bool(fooled.all()):
                break
            s = side(query, n_queries, p_init, height, width)
            now = squares[:, query - 1]
            # up to the edge (the published code never reaches the last row and column)
            first = [(now[:, i] * (n + 1 - s)).long().clamp(max=n - s) for i, n in enumerate((height, width))]
            top, left = (one.view(-1, 1, 1, 1) for one in first)
            places = ((top + side_rows[:s]) * width + left + side_columns[:s]).view(len(y), 1, s * s)
            places = places.expand(-1, best.shape[1], -1)
            planes = best.flatten(2)
            before, *faces = (points.flatten(2).gather(2, places) for points in (planes, low, high))
            sides = torch.where(now[:, 2:, None] < 0.5, *faces)
            planes.scatter_(2, places, sides)
            new, wrong = ask(best, y)
            better = ~fooled & ((new > lead_by) | wrong)
            planes.scatter_(2, places, torch.where(beside(better, sides, 0), sides, before))
            lead_by, fooled = torch.where(better, new, lead_by), fooled | wrong
        found[ids], ever[ids] = best, fooled
        return found.unflatten(1, lead).movedim(0, axis), ever

    return climb


class Square:
    """square with its settings held: `Square(clf, eps=8/255, n_queries=5000)(images, y)`; see square.

    The defaults are torchattacks'.
    """

    def __init__(
        self,
        network: Callable,
        eps: float | torch.Tensor | Sequence[float | torch.Tensor] = 8 / 255,
        n_queries: int = 5000,
        **how,
    ):
        self.network, self.settings = network, {"eps": eps, "n_queries": n_queries, **how}

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return adversarial input like x."""
        return square(self.network, x, y, **self.settings)
