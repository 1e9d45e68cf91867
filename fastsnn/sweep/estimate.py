"""How long a sweep will take, from a quick measurement of every network on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from .. import training
from ..attacks.gradient import input_gradient
from ..data import Dataset
from ..engine.batch_size import ON_CPU
from . import inputs, networks, plan, weights
from .by_name import TARGETS
from .plan import Network, Pass, Settings


@dataclass(frozen=True)
class Estimate:
    """Seconds for one network: to train it (0 where the cache has it), and to attack it; both to one digit or two."""

    network: Network
    cells: int
    training: float
    attacks: float


def estimate(settings: Settings, network: Network) -> Estimate:
    """Measure a pass forward, a gradient and a training step on a batch, and count how many of each there will be."""
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
    passes = plan.passes(settings, network)
    attacks = sum(_of_pass(cells, forward[cells[0].bn], gradient[cells[0].bn]) for cells in passes)
    cached = weights.path(networks.describe(settings, network, train_set, device)).exists()
    learns = 0.0 if cached else _of_training(settings, net, train_set, encode, device)
    return Estimate(network, sum(map(len, passes)), learns, attacks)


def _of_pass(cells: Pass, forward: float, gradient: float) -> float:
    first, budgets = cells[0], sum(cell.eps > 0 for cell in cells)
    runs = TARGETS if first.attack == "apgdt" else first.restarts
    climbs = 1 if first.attack == "fgsm" else first.steps * runs * budgets
    scored = budgets * (1 + (first.restarts if first.restarts > 1 else 0))
    return climbs * gradient + scored * forward


def _of_training(
    settings: Settings, net: nn.Module, train_set: Dataset, encode: nn.Module, device: torch.device
) -> float:
    size = min(settings.train_batch_size, len(train_set))
    images, labels = train_set.images[: 2 * size], train_set.labels[: 2 * size]
    how = {"epochs": 1, "lr": settings.lr, "batch_size": size, "encode": encode, "seed": 0}
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
