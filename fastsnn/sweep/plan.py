"""What a sweep does: its settings, checked, and the cells and stages they ask for.

settings -> stages: for each model and pooling: train, score clean, then each attack
stage    -> cells:  one row of the results each, a model x pooling x attack x eps
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from ..data import DATASETS
from ..engine.under_attack import BN_MODES
from ..models import BUILDERS
from ..models.sew_resnet import POOLS
from ..nn.precision import PRECISIONS
from ..ops import check
from ..training import SCHEDULES

ATTACKS = ("fgsm", "pgd")
DEVICES = ("auto", "cpu", "cuda", "cuda:N")


@dataclass(frozen=True)
class Settings:
    """Everything that determines a sweep's results, and how fast they come. All of it is checked on construction.

    Attributes:
        data: a name of fastsnn.data.
        models: names of fastsnn.models.
        width: planes of the networks' stem; 16 (64 as published) trains in seconds on two cores.
        pools: "max", "avg" or both: the stem's pooling.
        attacks: "fgsm", "pgd" or both.
        eps: budgets in 1/255 of the encoded input, whose spikes are 0 or 1; from 0 to 255.
        steps: iterations of PGD; 7 as in the paper.
        alpha: step of PGD on the encoded input, absolute (not in 1/255); 0.01 as in the paper.
        bn: batch norm while an attack is made: "frozen", "batch" or "drift", see attacks.under_attack.
        precision: of attacks and scores: "reference", "fp32" or "fast", see nn.precision. Training is always fp32.
        batch_size: images per batch when attacking and scoring; "auto" takes what is fast on a CPU, and on a GPU as
            many as its memory holds, found by halving. On a CPU no result depends on it with bn="frozen" (and precision
            "fp32" or "fast"); with batch statistics every result does, so that "auto" is refused.
        images: how many of the test images to attack, from the first; None for all.
        epochs: of training.
        train_batch_size: images per training step.
        lr: learning rate of Adam, at the start.
        schedule: of the learning rate, "constant" or "cosine", see training.train. The paper's code has lr=1e-3,
            constant, which swings between 89 and 97 % on digits after 4 or 5 epochs; the defaults here give 96.4 to
            97.5 % after 4 (width 16, max pooling, three seeds).
        weight_decay: Adam's L2 penalty; 1e-3 as in the paper.
        T: time steps; 10 as in the paper.
        K: phases; 8 as in the paper.
        seed: of initial weights, order of training images, and random starts.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError, TypeError: a setting is wrong; the message names it.
    """

    data: str = "digits"
    models: tuple[str, ...] = ("sew_resnet18",)
    width: int = 16
    pools: tuple[str, ...] = ("max", "avg")
    attacks: tuple[str, ...] = ATTACKS
    eps: tuple[float, ...] = (0, 2, 4, 6, 8, 16)
    steps: int = 7
    alpha: float = 0.01
    bn: str = "frozen"
    precision: str = "fp32"
    batch_size: int | str = 60
    images: int | None = None
    epochs: int = 4
    train_batch_size: int = 32
    lr: float = 3e-3
    schedule: str = "cosine"
    weight_decay: float = 1e-3
    T: int = 10
    K: int = 8
    seed: int = 3407
    device: str = "auto"

    def __post_init__(self):
        check.one_of("data", self.data, DATASETS)
        for name, allowed in (("models", BUILDERS), ("pools", POOLS), ("attacks", ATTACKS)):
            for value in _several(name, getattr(self, name)):
                check.one_of(name, value, allowed)
        for value in _several("eps", self.eps):
            if check.number("eps", value, at_least=0) > 255:
                raise ValueError(f"eps is {value:g} (in 1/255), expected at most 255, the whole range of the input.")
        for name in ("width", "epochs", "train_batch_size", "T", "K"):
            check.integer(name, getattr(self, name), at_least=1, at_most=16 if name == "K" else None)
        if self.images is not None:
            check.integer("images", self.images, at_least=1)
        check.integer("steps", self.steps, at_least=0)
        check.integer("seed", self.seed, at_least=0, at_most=2**63 - 1)
        check.number("alpha", self.alpha, above=0)
        check.number("lr", self.lr, above=0)
        check.number("weight_decay", self.weight_decay, at_least=0)
        check.one_of("schedule", self.schedule, SCHEDULES)
        check.one_of("bn", self.bn, BN_MODES)
        check.one_of("precision", self.precision, PRECISIONS)
        if isinstance(self.batch_size, str):
            check.one_of("batch_size", self.batch_size, ("auto",))
            if self.bn != "frozen":
                raise ValueError(
                    f"batch_size is 'auto' with bn={self.bn!r}: results would depend on the machine; expected a number."
                )
        else:
            check.integer("batch_size", self.batch_size, at_least=1)
        device(self.device)


DEFAULTS = {field.name: field.default for field in fields(Settings)}


@dataclass(frozen=True)
class Cell:
    """One row of the results: eps is in 1/255."""

    model: str
    pool: str
    attack: str
    eps: float


@dataclass(frozen=True)
class Stage:
    """A piece of work on one network: "train", "clean" (score without an attack) or an attack with its cells."""

    model: str
    pool: str
    work: str
    cells: tuple[Cell, ...] = ()

    def __str__(self) -> str:
        return f"{self.model} {self.pool}: {self.work}"


def stages(settings: Settings) -> list[Stage]:
    """Return the work of a sweep, in its order; a network is trained and scored before it is attacked."""
    work = []
    for model, pool in itertools.product(settings.models, settings.pools):
        work += [Stage(model, pool, "train"), Stage(model, pool, "clean")]
        for attack in settings.attacks:
            work.append(Stage(model, pool, attack, tuple(Cell(model, pool, attack, eps) for eps in settings.eps)))
    return work


def device(name: str) -> torch.device:
    """Return the device called `name`, or raise a ValueError if this machine does not have it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = str(name).partition(":")
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not index.isdigit())):
        check.one_of("device", name, DEVICES)
        raise ValueError(f"device is {name!r}, expected a number in place of N.")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices here.")
    return torch.device(name)


def _several(name: str, values: Sequence) -> Sequence:
    """Return `values` if there is at least one and none comes twice."""
    if isinstance(values, str) or not values:
        raise ValueError(f"{name} is {values!r}, expected at least one value, as a tuple.")
    twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
    if twice is not None:
        raise ValueError(f"{name} names {twice!r} twice, expected every value once.")
    return values
