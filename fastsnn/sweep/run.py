"""Runs a sweep: for each network, train it (or take weights from the cache), attack, and write cell by cell.

What the ledger has is not done again. Workers only compute; the ledger is written here.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy

from ..data import Dataset
from . import by_name, inputs, networks, plan, weights
from .attacker import shards
from .engines import Engine, Task
from .ledger import Ledger, Outcome
from .plan import Cell, Network, Pass, Settings
from .progress import Silent

RECIPE = 1  # of attacks: raise it when a change of code changes results, so that no ledger takes old ones for new


Hashed = tuple[Cell, str, dict]  # with its hash, and what that is of
Missing = tuple[list[Hashed], int]  # of a pass: the cells that are missing, and how many are there


@dataclass(frozen=True)
class Done:
    """A piece of work that is finished and saved: a network's training, with where its weights are, or cells."""

    work: str
    cells: Pass = ()
    weights: dict | None = None


def run(
    settings: Settings, ledger: Ledger, number: int, engine: Engine, progress: Silent, *, retrain: bool = False
) -> Iterator[Done]:
    """Yield what is finished, once it is in the ledger.

    Args:
        settings: what to do.
        ledger: what is done already, and where results go.
        number: of this run in the ledger.
        engine: where attacks are computed.
        progress: hears of every batch.
        retrain: train even where the cache has the weights.

    Raises:
        ImportError: an optional package is missing; the message names the extra.
        OSError: the cache of weights cannot be written to.
        LedgerError: nor can the ledger.
        EngineError: workers are lost.
        FloatingPointError: training diverged.
    """
    device, arithmetic = plan.device(settings.device), engine.arithmetic
    every = plan.networks(settings)
    progress.cells(sum(len(cells) for network in every for cells in plan.passes(settings, network)))
    splits = {name: [inputs.load(settings, name, split) for split in ("train", "test")] for name in settings.data}
    sets = {name: (train, test.first(settings.images)) for name, (train, test) in splits.items()}
    for network in every:
        train_set, test_set = sets[network.data]
        description = networks.describe(settings, network, train_set, device)
        known = ledger.weights_of(description)
        passes = plan.passes(settings, network)
        if known and not retrain:  # then nothing need be loaded to see that nothing is missing
            there = missing(settings, ledger, test_set, known, arithmetic, passes)
            if not any(cells for cells, _ in there):
                progress.cells_done(sum(map(len, passes)))
                continue
        net, origin = networks.trained(settings, network, train_set, device, progress, retrain=retrain)
        yield Done(f"{network}: train", weights=origin)
        state = {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}
        attack = _Attack(settings, ledger, number, engine, progress, network, description, weights.checksum(state))
        left = missing(settings, ledger, test_set, attack.weights, arithmetic, passes)
        yield from attack.passes(state, test_set, left)


@dataclass
class _Attack:
    """What the passes of one network share."""

    settings: Settings
    ledger: Ledger
    number: int
    engine: Engine
    progress: Silent
    network: Network
    description: dict
    weights: str
    began: float = field(default_factory=time.perf_counter)

    def passes(self, state: dict, test_set: Dataset, missing: list[Missing]) -> Iterator[Done]:
        """Attack and write, pass by pass; a pass is written when all its shards are there."""
        tasks, waiting = [], {}
        for i, (cells, there) in enumerate(missing):
            self.progress.cells_done(there)
            if cells:
                alone = tuple(cell for cell, _, _ in cells)
                parts = shards(self.settings, alone, len(test_set), self.engine.workers)
                tasks += [Task(i, self.network, alone, part) for part in parts]
                waiting[i] = dict.fromkeys(parts)
        for task, outcomes in self.engine.attack(state, tasks, self.progress):
            parts = waiting[task.number]
            parts[task.images] = outcomes
            if all(parts.values()):
                yield self._written(missing[task.number][0], _joined(list(parts.values())))
                del waiting[task.number]

    def _written(self, cells: list[Hashed], outcomes: list[Outcome]) -> Done:
        now = time.perf_counter()
        seconds, self.began = (now - self.began) / len(cells), now
        self.ledger.add(self.number, self.network, self.description, self.weights, cells, outcomes, seconds)
        self.progress.cells_done(len(cells))
        first = cells[0][0]
        return Done(f"{self.network}: {first.attack}", tuple(cell for cell, _, _ in cells))


def missing(
    settings: Settings, ledger: Ledger, test_set: Dataset, weights_hash: str, arithmetic: dict, passes: list[Pass]
) -> list[Missing]:
    """Return for each pass the cells that the ledger lacks, with their hashes, and how many it has.

    Args:
        settings: the sweep's.
        ledger: where to look.
        test_set: the images that are attacked.
        weights_hash: of the network's weights.
        arithmetic: of who attacks them, see networks.arithmetic.
        passes: the network's.
    """
    images, found = test_set.sha256(), []
    for cells in passes:
        hashed = [(cell, *_content_hash(settings, cell, weights_hash, images, arithmetic)) for cell in cells]
        lacking = [one for one in hashed if not ledger.has(one[1])]
        found.append((lacking, len(cells) - len(lacking)))
    return found


def _content_hash(settings: Settings, cell: Cell, weights_hash: str, images: str, arithmetic: dict) -> tuple[str, dict]:
    """Return a hash of everything that determines a cell's result, and that: down to the order of sums."""
    on_gpu = arithmetic["kernels"] is None  # whose sums may depend on the batch
    alone = cell.bn == "frozen" and settings.precision != "reference" and not on_gpu
    determined_by = {
        "recipe": RECIPE,
        "weights": weights_hash,
        "model": [cell.network.model, cell.network.pool, settings.width],
        "images": images,
        "T": settings.T,
        "K": settings.K,
        "attack": cell.attack,
        "eps": float(cell.eps),
        "steps": cell.steps,
        "restarts": cell.restarts,
        "alpha": settings.alpha if by_name.takes(cell.attack, "alpha") else None,
        "seed": cell.network.seed,
        "bn": cell.bn,
        "surrogate": cell.surrogate,
        "precision": settings.precision,
        "batch_size": None if alone else settings.batch_size,
        **networks.stem(cell.network),
        **networks.coding(cell.network),
        **arithmetic,
    }
    text = json.dumps(determined_by, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest(), determined_by


def _joined(parts: list[list[Outcome]]) -> list[Outcome]:
    """Return each cell's outcome over all images from those of the shards."""
    names = ("clean_correct", "correct", "zero_gradient", "linf")
    return [
        Outcome(*(numpy.concatenate([getattr(outcome, name) for outcome in outcomes]) for name in names))
        for outcomes in zip(*parts, strict=True)
    ]
