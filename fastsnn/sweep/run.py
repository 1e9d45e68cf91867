"""Runs a sweep, stage by stage: train (or take weights from the cache), score clean, attack and score.

Every pass of an attack starts from the trained weights and with the same random numbers, so a row does not depend on
which other rows a sweep has. FGSM serves all its eps with one gradient per batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from .. import attacks, data, training
from ..functional import phase_encode
from ..nn import precision
from . import networks, plan
from .plan import Cell, Settings, Stage
from .progress import Silent


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
    test = _Test(images.split(settings.batch_size), labels.split(settings.batch_size), len(labels), device)
    for stage in plan.stages(settings):
        began = time.perf_counter()
        rows, origin = (), None
        if stage.work == "train":
            net, origin = networks.trained(settings, stage, train_set, device, progress, retrain=retrain)
            state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        elif stage.work == "clean":
            clean = _score_clean(settings, stage, net, test, progress)
        else:
            correct = {}
            for cells in _passes(settings, stage):
                net.load_state_dict(state)
                correct |= _score_attacked(settings, cells, net, test, progress)
            rows = tuple(Row(cell, len(labels), correct.get(cell, clean), clean) for cell in stage.cells)
        yield Done(stage, time.perf_counter() - began, rows, origin)


@dataclass(frozen=True)
class _Test:
    """The test images in batches; going over them yields what a network takes, on its device."""

    images: tuple[torch.Tensor, ...]
    labels: tuple[torch.Tensor, ...]
    total: int
    device: torch.device

    def encoded(self, settings: Settings) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, labels in zip(self.images, self.labels, strict=True):
            yield phase_encode(images.to(self.device), settings.T, settings.K), labels.to(self.device)


def _score_clean(settings: Settings, stage: Stage, net: nn.Module, test: _Test, progress: Silent) -> int:
    """Return how many images are classified rightly without an attack."""
    progress.start(str(stage), test.total)
    correct = 0
    with precision(settings.precision):
        for x, y in test.encoded(settings):
            correct += training.count_correct(net, x, y)
            progress.advance(len(y))
    progress.finish(f"{100 * correct / test.total:.1f} %")
    return correct


def _passes(settings: Settings, stage: Stage) -> list[tuple[Cell, ...]]:
    """Return the cells to be attacked, in groups that share one pass over the images: all eps of FGSM, one of PGD."""
    cells = tuple(cell for cell in stage.cells if cell.eps > 0 or settings.bn == "drift")
    return [cells] if stage.work == "fgsm" and cells else [(cell,) for cell in cells]


def _score_attacked(
    settings: Settings, cells: tuple[Cell, ...], net: nn.Module, test: _Test, progress: Silent
) -> dict[Cell, int]:
    """Return how many images are classified rightly under the attack of each cell."""
    first = cells[0]
    budgets = f"eps {first.eps:g}" if len(cells) == 1 else f"{len(cells)} eps"
    progress.start(f"{first.model} {first.pool}: {first.attack}, {budgets}", test.total)
    correct = dict.fromkeys(cells, 0)
    generator = torch.Generator(test.device).manual_seed(settings.seed)
    for x, y in test.encoded(settings):
        for cell, adv in zip(cells, _craft(settings, cells, net, x, y, generator), strict=True):
            with precision(settings.precision):
                correct[cell] += training.count_correct(net, adv, y)
        progress.advance(len(y))
    progress.finish(f"{100 * min(correct.values()) / test.total:.1f} %")
    return correct


def _craft(
    settings: Settings,
    cells: tuple[Cell, ...],
    net: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    generator: torch.Generator,
) -> list[torch.Tensor]:
    """Return adversarial input for every cell of a pass."""
    how = {"bn": settings.bn, "precision": settings.precision}
    eps = [cell.eps / 255 for cell in cells]
    if cells[0].attack == "fgsm":
        return attacks.fgsm(net, x, y, eps=eps, **how)
    how |= {"alpha": settings.alpha, "steps": settings.steps, "generator": generator}
    return [attacks.pgd(net, x, y, eps=budget, **how) for budget in eps]
