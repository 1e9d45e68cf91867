"""Runs a sweep, stage by stage: train (or take weights from the cache), score clean, attack and score.

Every pass of an attack starts from the trained weights, and every image has random numbers of its own, so a row depends
neither on which other rows a sweep has nor on the batch size. All eps of an attack share a pass: FGSM serves them with
one gradient, PGD with copies of the batch where that is faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from .. import attacks, data
from ..attacks.gradient import input_gradient
from ..engine.batch_size import first_try, halved_until_it_fits
from ..functional import phase_encode
from . import networks, plan
from .plan import Cell, Settings, Stage
from .progress import Silent

Result = TypeVar("Result")


@dataclass(frozen=True)
class Row:
    """One result: how many of the images are classified rightly under attack, and how many without.

    eps = 0 moves nothing, so its row is the clean score; only with bn="drift", where making examples changes the
    network, is it measured.
    """

    cell: Cell
    images: int
    correct: int
    clean_correct: int


@dataclass(frozen=True)
class Done:
    """A finished stage: how long it took, its rows (of an attack), where its weights come from (of training)."""

    stage: Stage
    seconds: float
    rows: tuple[Row, ...] = ()
    weights: dict | None = None


def run(settings: Settings, progress: Silent, *, retrain: bool = False) -> Iterator[Done]:
    """Yield the stages of a sweep as they finish.

    Args:
        settings: what to do.
        progress: hears of every batch.
        retrain: train even where the cache has the weights.

    Raises:
        ImportError: an optional package is missing; the message names the extra.
        OSError: the cache of weights cannot be written to.
        FloatingPointError: training diverged.
    """
    device = plan.device(settings.device)
    train_set, test_set = data.load(settings.data, "train"), data.load(settings.data, "test")
    images, labels = test_set.images[: settings.images], test_set.labels[: settings.images]
    test = _Test(images, labels, device, settings)
    for stage in plan.stages(settings):
        began = time.perf_counter()
        rows, origin = (), None
        if stage.work == "train":
            net, origin = networks.trained(settings, stage, train_set, device, progress, retrain=retrain)
            test.begin()
            state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        elif stage.work == "clean":
            clean = _score_clean(stage, net, test, progress)
        else:
            correct = {}
            for cells in _passes(settings, stage):
                net.load_state_dict(state)
                correct |= _score_attacked(settings, cells, net, test, progress)
            rows = tuple(Row(cell, len(labels), correct.get(cell, clean), clean) for cell in stage.cells)
        yield Done(stage, time.perf_counter() - began, rows, origin)


class _Test:
    """The test images, gone over in batches of a fixed size, or with "auto" of the size that fits."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, device: torch.device, settings: Settings):
        self.images, self.labels, self.device, self.settings = images, labels, device, settings
        draws = torch.Generator().manual_seed(settings.seed)
        self.seeds = torch.randint(2**63 - 1, labels.shape, generator=draws).tolist()
        self.begin()

    def begin(self) -> None:
        """Forget, for another network, which size fitted the last one."""
        size = self.settings.batch_size
        self.size = first_try(self.device, len(self.labels)) if size == "auto" else size

    def batches(self, work: Callable[..., Result]) -> Iterator[tuple[int, Result]]:
        """Yield, for each batch, how many images it has, and work(encoded input, labels, generators)."""
        first = 0

        def on(images: int) -> Result:
            some = slice(first, first + images)
            x = phase_encode(self.images[some].to(self.device), self.settings.T, self.settings.K)
            generators = [torch.Generator(self.device).manual_seed(seed) for seed in self.seeds[some]]
            return work(x, self.labels[some].to(self.device), generators)

        while left := len(self.labels) - first:
            images = min(self.size, left)
            if self.settings.batch_size == "auto":
                result, fitted = halved_until_it_fits(on, images)
                self.size, images = self.size if fitted == images else fitted, fitted
            else:
                result = on(images)
            yield images, result
            first += images


def _score_clean(stage: Stage, net: nn.Module, test: _Test, progress: Silent) -> int:
    """Return how many images are classified rightly without an attack."""
    progress.start(str(stage), len(test.labels))
    correct = 0
    for images, right in test.batches(lambda x, y, _: _count_correct(test.settings, net, x, y)):
        correct += right
        progress.advance(images)
    progress.finish(f"{100 * correct / len(test.labels):.1f} %")
    return correct


def _count_correct(settings: Settings, net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    """Return how many are classified rightly, by the sums that attacks use."""
    with input_gradient(net, precision=settings.precision) as gradient:
        misclassified, _ = gradient.outcome(x, y)
    return int((~misclassified).sum())


def _passes(settings: Settings, stage: Stage) -> list[tuple[Cell, ...]]:
    """Return the cells to be attacked, in groups that share one pass over the images: all that leave the network be."""
    cells = tuple(cell for cell in stage.cells if cell.eps > 0 or settings.bn == "drift")
    alone = settings.bn == "drift" and stage.work == "pgd"
    return [(cell,) for cell in cells] if alone else [cells] if cells else []


def _score_attacked(
    settings: Settings, cells: tuple[Cell, ...], net: nn.Module, test: _Test, progress: Silent
) -> dict[Cell, int]:
    """Return how many images are classified rightly under the attack of each cell."""
    first, total = cells[0], len(test.labels)
    budgets = f"eps {first.eps:g}" if len(cells) == 1 else f"{len(cells)} eps"
    progress.start(f"{first.model} {first.pool}: {first.attack}, {budgets}", total)
    correct = dict.fromkeys(cells, 0)

    def attack(x: torch.Tensor, y: torch.Tensor, generators: list[torch.Generator]) -> list[int]:
        return [_count_correct(settings, net, adv, y) for adv in _craft(settings, cells, net, x, y, generators)]

    for images, right in test.batches(attack):
        correct = {cell: correct[cell] + n for cell, n in zip(cells, right, strict=True)}
        progress.advance(images)
    progress.finish(f"{100 * min(correct.values()) / total:.1f} %")
    return correct


def _craft(
    settings: Settings,
    cells: tuple[Cell, ...],
    net: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    generators: list[torch.Generator],
) -> list[torch.Tensor]:
    """Return adversarial input for every cell of a pass."""
    how = {"eps": [cell.eps / 255 for cell in cells], "bn": settings.bn, "precision": settings.precision}
    if cells[0].attack == "fgsm":
        return attacks.fgsm(net, x, y, **how)
    return attacks.pgd(net, x, y, alpha=settings.alpha, steps=settings.steps, generator=generators, **how)
