"""How long a sweep will take, from a quick measurement of every network on this machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from .. import training
from ..attacks.input_gradient import input_gradient
from ..data import Dataset
from ..engine.batch_size import ON_CPU
from . import inputs, networks, plan, weights
from .by_name import TARGETS
from .ledger import FILE, Ledger
from .plan import Network, Pass, Settings
from .run import missing


@dataclass(frozen=True)
class Estimate:
    """Of one network: its cells, how many of them are saved, and seconds to train it and to attack it.

    There is nothing to train where the cache has the weights, or every cell is saved.
    """

    network: Network
    cells: int
    saved: int
    training: float
    attacks: float


def estimate(settings: Settings, out: Path) -> list[Estimate]:
    """Measure a pass forward, a gradient and a training step on a batch, and count how many of each are left to do.

    Args:
        settings: the sweep's.
        out: its folder, which may have a ledger.

    Raises:
        LedgerError: that cannot be read.
    """
    measured, found = {}, []
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(Ledger.read(out)) if (out / FILE).exists() else None
        for network in plan.networks(settings):
            passes, trained = _left(settings, network, ledger)
            cells, left = (sum(map(len, some)) for some in (plan.passes(settings, network), passes))
            learns = attacks = 0.0
            if left:
                # seeds and poolings take the same time
                alike = (network.data, network.model, network.stem, network.coding, network.defence)
                seconds = measured[alike] = measured.get(alike) or _measured(settings, network)
                learns = 0.0 if trained else seconds.training
                attacks = sum(_of_pass(some, seconds) for some in passes)
            found.append(Estimate(network, cells, cells - left, learns, attacks))
    return found


def _left(settings: Settings, network: Network, ledger: Ledger | None) -> tuple[list[Pass], bool]:
    """Return what is missing of a network's passes, and whether the cache has its weights."""
    device, passes = plan.device(settings.device), plan.passes(settings, network)
    train_set, test_set = (inputs.load(settings, network.data, split) for split in ("train", "test"))
    description = networks.describe(settings, network, train_set, device)
    trained = settings.weights is not None or weights.path(description).exists()
    known = None if ledger is None else ledger.weights_of(description)
    if known is None:
        return passes, trained
    arithmetic = networks.arithmetic(device)  # a cluster's workers may have another
    there = missing(settings, ledger, test_set.first(settings.images), known, arithmetic, passes)
    return [tuple(cell for cell, _, _ in cells) for cells, _ in there if cells], trained


@dataclass(frozen=True)
class _Measured:
    """Seconds: by bn for all images forward and for their gradient, and for the whole training."""

    forward: dict[str, float]
    gradient: dict[str, float]
    training: float


def _measured(settings: Settings, network: Network) -> _Measured:
    device = plan.device(settings.device)
    train_set, test_set = (inputs.load(settings, network.data, split) for split in ("train", "test"))
    net = networks.untrained(settings, network, test_set.num_classes).to(device)
    size = min(ON_CPU if settings.batch_size == "auto" else settings.batch_size, len(test_set))
    encode = inputs.encoder(settings, network)
    x = encode(test_set.images[:size].to(device))
    y = test_set.labels[:size].to(device)
    images = len(test_set.labels[: settings.images])
    forward, gradient = {}, {}
    for bn in settings.bn:
        with input_gradient(net.eval(), bn=bn, precision=settings.precision) as at:
            gradient[bn] = _seconds(lambda at=at: at(x, y), device) * images / size
            forward[bn] = _seconds(lambda at=at: at.outcome(x, y), device) * images / size
    return _Measured(forward, gradient, _of_training(settings, network, net, train_set, encode, device))


def _of_pass(cells: Pass, seconds: _Measured) -> float:
    first, budgets = cells[0], sum(cell.eps > 0 for cell in cells)
    runs = TARGETS if first.attack == "apgdt" else first.restarts
    climbs = 1 if first.attack == "fgsm" else first.steps * runs * budgets
    scored = budgets * (1 + (first.restarts if first.restarts > 1 else 0))
    return climbs * seconds.gradient[first.bn] + scored * seconds.forward[first.bn]


def _of_training(
    settings: Settings, network: Network, net: nn.Module, train_set: Dataset, encode: nn.Module, device: torch.device
) -> float:
    size = min(settings.train_batch_size, len(train_set))
    images, labels = train_set.images[: 2 * size], train_set.labels[: 2 * size]
    how = {"epochs": 1, "lr": settings.lr, "batch_size": size, "encode": encode, "seed": 0}
    how["precision"] = settings.train_precision
    how["defence"] = training.defence_of("defence", network.defence)
    step = _seconds(lambda: training.train(net, images, labels, **how), device) / len(labels)
    return step * settings.epochs * len(train_set)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the best of two, after one to warm up."""
    found = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - began)
    return min(found[1:])
