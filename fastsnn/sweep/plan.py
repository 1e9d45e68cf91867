"""What a sweep does: its settings, checked, and the networks and cells they ask for.

settings -> networks: data x model x stem x pooling x seed x coding x defence, trained once each
network  -> cells:    attack x bn x surrogate x steps x restarts x eps, one line of the results each
cells    -> passes:   cells that differ in eps only go over the images together
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from ..attacks.surrogates import shape_and_alpha
from ..data import DATASETS, EVENTS, cifar10_dvs
from ..engine.under_attack import BN_MODES
from ..models import BUILDERS, NO_POOL, POOLINGS, POOLS, STEM, STEMMED, STEMS
from ..nn import ENCODERS
from ..nn.precision import IN_TRAINING, PRECISIONS
from ..ops import check
from ..training import OPTIMIZERS, SCHEDULES, defence_of
from .by_name import ATTACKS, takes

EVENTS_CODING = "events"  # what networks of data.EVENTS have for a coding: none
DEVICES = ("auto", "cpu", "cuda", "cuda:N")


@dataclass(frozen=True)
class Settings:
    """Everything that determines a sweep's results, and how fast they come. All of it is checked on construction.

    Attributes:
        data: names of fastsnn.data.
        root: the folder that has the files of the data sets, see data.load; None for fastsnn's cache.
        frame_size: height and width of event frames: 128 as recorded, 64 or 48.
        codings: names of nn.ENCODERS: how images become encoded input; "phase" as in the paper. A network is trained
            for each. Recordings of events are not coded at all.
        models: names of fastsnn.models.
        width: planes of the networks' stem; 16 (64 as published) trains in seconds on two cores.
        pools: "max", "avg" or both: the pooling in the stem, or between the layers of a VGG; a network that has one of
            them only (wrn16_4, "avg") is trained with that one, and one whose stem has no pool is trained once.
        stems: of SEW- and Spiking-ResNets: "imagenet", as published, or "cifar": a 3x3 convolution with stride 1 and no
            pool; a network is trained for each. Other networks have no choice, and refuse "cifar".
        attacks: of "fgsm", "pgd", "mim", "apgd" and "apgdt"; see fastsnn.attacks.
        eps: budgets in 1/255 of the encoded input, whose spikes are 0 or 1; from 0 to 255.
        steps: iterations of all but FGSM; 7 as in the paper.
        restarts: of PGD and APGD, of which the worst counts for each image; 1 as in the paper.
        alpha: step of PGD and MIM on the encoded input, absolute (not in 1/255); 0.01 as in the paper.
        bn: batch norm while an attack is made: "frozen", "batch" or "drift", see attacks.under_attack.
        surrogates: what the attacker takes for the gradient of a spike, as "shape:alpha"; "atan:2" is what networks are
            trained with (vgg11 and wrn16_4: "triangle:1"), see functional.integrate_fire.
        precision: of attacks and scores: "reference", "fp32" or "fast", see nn.precision.
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
        weight_decay: L2 penalty of the optimizer; 1e-3 as in the paper.
        optimizer: "adam" as in the paper, or "sgd" (momentum 0.9).
        train_precision: of training: "fp32" or "bf16", see training.Trainer.
        flips: turn training images left to right by chance, as the paper's code does; digits have a side, so not here.
        defences: how networks are trained, see training.defences: "none", or e.g. "snn_rat" or "snn_rat:eps=4"; a
            network is trained for each.
        weights: a file of trained weights, as `fastsnn train` writes them, to attack instead of training here; the
            settings above must then be those of its one network, see weights.settings_of.
        T: time steps, and frames of a recording; 10 as in the paper.
        K: phases of the phase code; 8 as in the paper.
        seeds: of initial weights, order of training images, and random starts; a network is trained for each.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError, TypeError: a setting is wrong; the message names it.
    """

    data: tuple[str, ...] = ("digits",)
    root: str | None = None
    frame_size: int = cifar10_dvs.SIZE
    codings: tuple[str, ...] = ("phase",)
    models: tuple[str, ...] = ("sew_resnet18",)
    width: int = 16
    pools: tuple[str, ...] = ("max", "avg")
    stems: tuple[str, ...] = (STEM,)
    attacks: tuple[str, ...] = ("fgsm", "pgd")
    eps: tuple[float, ...] = (0, 2, 4, 6, 8, 16)
    steps: tuple[int, ...] = (7,)
    restarts: tuple[int, ...] = (1,)
    alpha: float = 0.01
    bn: tuple[str, ...] = ("frozen",)
    surrogates: tuple[str, ...] = ("atan:2",)
    precision: str = "fp32"
    batch_size: int | str = 60
    images: int | None = None
    epochs: int = 4
    train_batch_size: int = 32
    lr: float = 3e-3
    schedule: str = "cosine"
    weight_decay: float = 1e-3
    optimizer: str = "adam"
    train_precision: str = "fp32"
    flips: bool = False
    defences: tuple[str, ...] = ("none",)
    weights: str | None = None
    T: int = 10
    K: int = 8
    seeds: tuple[int, ...] = (3407,)
    device: str = "auto"

    def __post_init__(self):
        names = (("data", DATASETS), ("codings", ENCODERS), ("models", BUILDERS), ("pools", POOLS))
        names += (("stems", STEMS),)
        names += (("attacks", ATTACKS), ("bn", BN_MODES))
        for name, allowed in names:
            for value in _several(name, getattr(self, name)):
                check.one_of(name, value, allowed)
        for model in self.models:
            if not set(POOLINGS[model]) & set(self.pools):
                raise ValueError(
                    f"pools is {self.pools!r}, but {model} has {' or '.join(POOLINGS[model])} pooling only."
                )
            if model not in STEMMED and set(self.stems) != {STEM}:
                raise ValueError(f"stems is {self.stems!r}, but {model} has no choice of stem; expected ({STEM!r},).")
        for value in _several("eps", self.eps):
            if check.number("eps", value, at_least=0) > 255:
                raise ValueError(f"eps is {value:g} (in 1/255), expected at most 255, the whole range of the input.")
        for name, least in (("steps", 0), ("restarts", 1), ("seeds", 0)):
            for value in _several(name, getattr(self, name)):
                check.integer(name, value, at_least=least, at_most=2**63 - 1)
        auto = next((name for name in self.attacks if name in ("apgd", "apgdt")), None)
        if auto and 0 in self.steps:
            raise ValueError(f"steps has 0 with attacks={auto!r}, expected at least 1.")
        for value in _several("surrogates", self.surrogates):
            shape_and_alpha("surrogates", value)
        for value in _several("defences", self.defences):
            defence_of("defences", value)
        for name in ("width", "epochs", "train_batch_size", "T", "K"):
            check.integer(name, getattr(self, name), at_least=1, at_most=16 if name == "K" else None)
        for value in self.defences:  # here, lest the networks before it be trained in vain
            if getattr(defence_of("defences", value), "periods", 0) > self.T:
                raise ValueError(f"defences has {value!r}, expected at most as many periods as T, which is {self.T}.")
        if self.images is not None:
            check.integer("images", self.images, at_least=1)
        for name in ("root", "weights"):
            if not isinstance(getattr(self, name), str | None):
                raise TypeError(f"{name} is {getattr(self, name)!r}, expected a path as text.")
        cifar10_dvs.check_size("frame_size", self.frame_size)
        check.number("alpha", self.alpha, above=0)
        check.number("lr", self.lr, above=0)
        check.number("weight_decay", self.weight_decay, at_least=0)
        check.one_of("schedule", self.schedule, SCHEDULES)
        check.one_of("optimizer", self.optimizer, OPTIMIZERS)
        check.one_of("train_precision", self.train_precision, IN_TRAINING)
        if not isinstance(self.flips, bool):
            raise TypeError(f"flips is {self.flips!r}, expected True or False.")
        check.one_of("precision", self.precision, PRECISIONS)
        if isinstance(self.batch_size, str):
            check.one_of("batch_size", self.batch_size, ("auto",))
            moving = next((bn for bn in self.bn if bn != "frozen"), None)
            if moving:
                raise ValueError(
                    f"batch_size is 'auto' with bn={moving!r}: results would depend on the machine; expected a number."
                )
        else:
            check.integer("batch_size", self.batch_size, at_least=1)
        device(self.device)


DEFAULTS = {field.name: field.default for field in fields(Settings)}


def told(settings: Settings) -> dict[str, object]:
    """Return the settings that name a folder: of those that came later only what is not as it once was for all."""
    later = ("stems", "train_precision")
    return {name: value for name, value in asdict(settings).items() if name not in later or value != DEFAULTS[name]}


@dataclass(frozen=True)
class Network:
    """What is trained once and attacked by many cells.

    Attributes:
        data: a name of data.DATASETS.
        model: a name of models.BUILDERS.
        pool: "max", "avg", or models.NO_POOL where the stem has none.
        seed: of everything random.
        coding: a name of nn.ENCODERS, or EVENTS_CODING.
        defence: as in Settings.defences.
        stem: a name of models.STEMS; STEM also for a network that has no choice.
    """

    data: str
    model: str
    pool: str
    seed: int
    coding: str = "phase"
    defence: str = "none"
    stem: str = STEM

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Network:
        """Return the network of a row of a ledger's results; what older ledgers do not know is as it was then."""
        named = (field.name for field in fields(cls))
        return cls(**{name: row[name] for name in named if row[name] is not None})

    def __str__(self) -> str:
        coding = "" if self.coding == "phase" else f" {self.coding}"
        defence = "" if self.defence == "none" else f" {self.defence}"
        shape = self.pool if self.stem == STEM else f"{self.stem}-stem"
        return f"{self.model} {shape} {self.seed}{coding}{defence}"


@dataclass(frozen=True)
class Cell:
    """One line of the results: eps is in 1/255; FGSM has one step, and what knows no restarts has 1."""

    network: Network
    attack: str
    bn: str
    surrogate: str
    steps: int
    restarts: int
    eps: float


Pass = tuple[Cell, ...]  # cells that differ in eps only


def networks(settings: Settings) -> list[Network]:
    """Return the networks of a sweep, in its order: each model with the poolings that it has."""
    found = []
    for name, model, stem in itertools.product(settings.data, settings.models, settings.stems):
        pools = [pool for pool in settings.pools if pool in POOLINGS[model]] if STEMS[stem].has_pool else [NO_POOL]
        codings = (EVENTS_CODING,) if name in EVENTS else settings.codings
        for pool, seed, coding, defence in itertools.product(pools, settings.seeds, codings, settings.defences):
            found.append(Network(name, model, pool, seed, coding, defence, stem))
    return found


def passes(settings: Settings, network: Network) -> list[Pass]:
    """Return the cells of a network, in the groups that share their way over the images."""
    found = []
    for attack, bn, surrogate in itertools.product(settings.attacks, settings.bn, settings.surrogates):
        axes = (getattr(settings, name) if takes(attack, name) else (1,) for name in ("steps", "restarts"))
        for how in itertools.product(*axes):
            found.append(tuple(Cell(network, attack, bn, surrogate, *how, eps) for eps in settings.eps))
    return found


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
