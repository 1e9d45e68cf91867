"""Training that leaves files: what `fastsnn train` does with one network, in a folder of its own.

    latest.safetensors      weights of the last whole epoch, a state_dict, also for `fastsnn sweep --weights`
    best.safetensors        those of the epoch with the highest accuracy on the test images, under attack if one is made
    checkpoint.safetensors  everything that going on takes: weights, optimizer, random numbers, the log
    log.csv                 a line per epoch
    training.json           how the network is trained, how far it is, which epoch is the best
    tensorboard/            the numbers of the log as scalars, if asked for

Each is replaced at once, after every epoch, the checkpoint last of those that hold weights; the log is drawn from it.
So whoever is killed loses at most the epoch that he was in, and an epoch that is done again has the same bits.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib.util
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .. import attacks, files, training
from ..data import Dataset
from ..training import Ranks
from . import inputs, networks, plan, weights
from .plan import Network, Settings
from .progress import Silent
from .report import written
from .sparsity import check_single

_ALONE = Ranks()
LATEST, BEST, CHECKPOINT = "latest.safetensors", "best.safetensors", "checkpoint.safetensors"
LOG, ABOUT = "log.csv", "training.json"
_COLUMNS = ("epoch", "lr", "loss", "accuracy", "robust_accuracy", "seconds")
# a checkpoint made with others of these can be gone on with, but not bit for bit
_MACHINE = ("torch", "device", "kernels", "threads", "processes")
_NEEDS = {"sklearn": "scikit-learn", "safetensors": "safetensors", "rich": "rich"}


def folder_of(out: Path, network: Network) -> Path:
    """Return a network's folder within `out`."""
    return out / re.sub(r"[^\w.]+", "-", f"{network.data} {network}")


def prepare(settings: Settings, out: Path, *, tensorboard: bool = False, ranks: Ranks = _ALONE) -> None:
    """Refuse a training that cannot work before it begins, and make its folders.

    Raises:
        ImportError: an optional package is missing; the message names the extra.
        ValueError: a folder holds the checkpoint of another training; the attack has several budgets, steps or kinds of
            bn; processes cannot share a batch evenly; settings.images asks for more images than there are, or a file of
            a data set is damaged.
        FileNotFoundError: a data set is not there.
        CorruptWeightsError: a checkpoint cannot be read.
        OSError: a folder cannot be made or written to.
    """
    missing = [package for module, package in _NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f'training needs {", ".join(missing)}; install with: pip install "fastsnn[sweep]"')
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ImportError('scalars need tensorboard; install with: pip install "fastsnn[tensorboard]"')
    check_single(settings)
    ranks.check_batch("train_batch_size", settings.train_batch_size)
    device = plan.device(settings.device)
    for network in plan.networks(settings):
        train_set = inputs.load(settings, network.data, "train")
        folder = folder_of(out, network)
        folder.mkdir(parents=True, exist_ok=True)
        _check_same(folder / CHECKPOINT, _described(settings, network, train_set, device, ranks))


def train(
    settings: Settings,
    network: Network,
    out: Path,
    progress: Silent,
    *,
    robust: bool = False,
    tensorboard: bool = False,
    ranks: Ranks = _ALONE,
) -> Iterator[dict[str, Any]]:
    """Train a network, or go on where its checkpoint is; yield each epoch's line of the log once it is on the disk.

    Args:
        settings: how to train; steps and alpha of the attack, its budget the first of eps, and how many test images.
        network: one of plan.networks(settings).
        out: its folder goes in here; see prepare, which comes before.
        progress: hears of every batch.
        robust: after every epoch, also the accuracy under PGD (frozen statistics, encoded input).
        tensorboard: write scalars too.
        ranks: the processes that train together. The first of them scores, writes and says; lines of the others hold
            the epoch and the loss.

    Raises:
        CorruptWeightsError: the checkpoint is damaged.
        FloatingPointError: training diverged.
        OSError: a file cannot be written.
    """
    device, folder = plan.device(settings.device), folder_of(out, network)
    train_set, test_set = (inputs.load(settings, network.data, split) for split in ("train", "test"))
    description = _described(settings, network, train_set, device, ranks)
    net = networks.untrained(settings, network, train_set.num_classes).to(device)
    trainer = networks.trainer_of(settings, network, net, train_set, device, ranks)
    log = _resumed(trainer, folder / CHECKPOINT, description, progress)
    if log:
        progress.say(f"{network}: goes on after epoch {len(log)}, from {folder / CHECKPOINT}")
        if robust and (without := sum(row["robust_accuracy"] is None for row in log)):
            progress.say(f"{network}: {without} of those were scored without PGD, and are not scored again")
    score = functools.partial(_score, settings, network, net, test_set.first(settings.images), device)
    is_first = ranks.rank == 0
    shows = tensorboard and is_first
    with _scalars(folder / "tensorboard", len(log)) if shows else contextlib.nullcontext() as scalars:
        while len(log) < settings.epochs:
            progress.start(f"{network}: epoch {len(log) + 1}/{settings.epochs}", len(train_set))
            began = time.perf_counter()
            row = {"epoch": len(log) + 1, "lr": trainer.optimizer.param_groups[0]["lr"]}
            row["loss"] = trainer.epoch(lambda batch: progress.advance(batch.images))
            if not is_first:
                log.append(row)
                yield row
                continue
            row["accuracy"] = score()
            row["robust_accuracy"] = score(attacked=True) if robust else None
            row["seconds"] = round(time.perf_counter() - began, 3)
            log.append(row)
            _save(folder, trainer, description, log)
            if scalars is not None:
                _tell(scalars, row)
            shown = [f"loss {row['loss']:.3f}, accuracy {100 * row['accuracy']:.1f} %"]
            shown += [f"under attack {100 * row['robust_accuracy']:.1f} %"] if robust else []
            progress.finish(", ".join(shown))
            yield row


def best(log: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the first line with the highest accuracy: under attack where all have one, else without."""
    name = "accuracy" if any(row["robust_accuracy"] is None for row in log) else "robust_accuracy"
    return max(log, key=lambda row: row[name])


def _save(folder: Path, trainer: training.Trainer, description: dict, log: list[dict[str, Any]]) -> None:
    tensors, numbers = trainer.state()
    state = trainer.net.state_dict()
    about = description | {"epochs_done": len(log)}
    if best(log) is log[-1]:
        weights.save(folder / BEST, state, about)
    weights.save(folder / LATEST, state, about)
    weights.save(folder / CHECKPOINT, tensors, {"training": description, "state": numbers, "log": log})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([written(row[name]) for name in _COLUMNS] for row in log)
    files.write(folder / LOG, text.getvalue().encode())
    about |= {"best": best(log)}
    files.write(folder / ABOUT, (json.dumps(about, indent=2) + "\n").encode())


def _described(
    settings: Settings, network: Network, train_set: Dataset, device: torch.device, ranks: Ranks
) -> dict[str, Any]:
    together = {"processes": ranks.size} if ranks.size > 1 else {}
    return networks.describe(settings, network, train_set, device) | together


def _check_same(checkpoint: Path, description: dict) -> dict[str, Any] | None:
    """Return what a checkpoint says of itself, None where there is none; refuse that of another training."""
    if not checkpoint.exists():
        return None
    found = weights.description(checkpoint)
    theirs, ours = (_without_machine(one) for one in (found["training"], description))
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            one = f"{name} was {theirs.get(name)!r} and is now {ours.get(name)!r}"
            raise ValueError(f"{checkpoint} is of another training: {one}; name another --out, or delete its folder.")
    return found


def _without_machine(description: dict) -> dict:
    """Return a description, flat, without what may change; a constant schedule does not know when it ends."""
    how = dict(description["training"])
    if how["schedule"] == "constant":
        del how["epochs"]
    return {name: value for name, value in description.items() if name not in (*_MACHINE, "training")} | how


def _resumed(trainer: training.Trainer, checkpoint: Path, description: dict, progress: Silent) -> list[dict[str, Any]]:
    """Load a checkpoint into the trainer, if there is one; return its log."""
    found = _check_same(checkpoint, description)
    if found is None:
        return []
    if other := [name for name in _MACHINE if found["training"].get(name) != description.get(name)]:
        progress.say(f"{checkpoint} was made with another {' and '.join(other)}: what follows may round otherwise.")
    trainer.load_state(weights.load(checkpoint), found["state"])
    return found["log"]


def _score(
    settings: Settings,
    network: Network,
    net: torch.nn.Module,
    test_set: Dataset,
    device: torch.device,
    *,
    attacked: bool = False,
) -> float:
    """Return the share of test images that are classified rightly; the same random numbers after every epoch."""
    encode = inputs.encoder(settings, network, inputs.generator(network.seed, device))
    how = {"eps": settings.eps[0] / 255, "alpha": settings.alpha, "steps": settings.steps[0]}
    how["generator"] = torch.Generator(device).manual_seed(network.seed)
    attack = functools.partial(attacks.pgd, net, **how) if attacked else None
    size = settings.batch_size
    return training.evaluate(net, test_set.images, test_set.labels, batch_size=size, encode=encode, attack=attack)


def _scalars(folder: Path, done: int):
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder, purge_step=done + 1)  # of an epoch that is done again, only the second time counts


def _tell(scalars, row: dict[str, Any]) -> None:
    for name in ("loss", "lr", "accuracy", "robust_accuracy"):
        if row[name] is not None:
            scalars.add_scalar(name, row[name], row["epoch"])
    scalars.flush()
