"""What the flags of several commands share; a flag's default is that of the setting which it sets."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from types import MappingProxyType

from ..data import DATASETS
from ..models import BUILDERS, STEMS
from ..nn import ENCODERS
from ..nn.precision import IN_TRAINING
from ..sweep import plan_file
from ..sweep.plan import DEFAULTS
from ..training import DEFENCES, OPTIMIZERS
from .speech import PROGRESS


def add(
    group,
    flag: str,
    kind: type,
    metavar: str,
    text: str,
    default: object = None,
    nargs: int | str = "+",
    shown: str = "all",
) -> None:
    """Add the flag of a setting, whose default is that of Settings if no other is given.

    `nargs` is for lists, `shown` for a default of None.
    """
    field = {plan_file.flag(name): name for name in DEFAULTS}[flag]
    own = DEFAULTS[field]
    many = {"nargs": nargs} if isinstance(own, tuple) else {}
    value = own if default is None else default
    if value is not None:
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
    given = None if default is None else [str(default)] if many else default
    how = {"type": kind, "metavar": metavar, "default": given, "help": f"{text} (default: {shown})"}
    group.add_argument(f"--{flag}", dest=field, **how, **many)


def add_network_flags(parser: argparse.ArgumentParser, own: Mapping[str, object] = MappingProxyType({})) -> None:
    """Add what networks see and are; `own` defaults go before those of Settings."""
    group = parser.add_argument_group("networks and data (lists with spaces or commas)")
    add(group, "data", str, "NAME", f"data sets: {', '.join(DATASETS)}")
    text = "that has the files of the data sets, as they are published; without one, fastsnn's cache, to which the"
    add(group, "root", str, "FOLDER", f"{text} CIFARs are downloaded", shown="the cache")
    add(group, "frame-size", int, "PIXELS", "height and width of event frames: 128 as recorded, 64 or 48")
    text = "how images become spikes; a network is trained for each, and recordings of events are not coded"
    add(group, "coding", str, "NAME", f"{text}: {', '.join(ENCODERS)}")
    add(group, "models", str, "NAME", f"networks: {', '.join(BUILDERS)}")
    text = "planes of the first stage, doubled in each later one; 64 as published"
    add(group, "width", int, "PLANES", text, own.get("width"))
    text = "pooling in the stem, or between a VGG's layers; a network is trained for each"
    add(group, "pool", str, "max|avg", text, own.get("pools"))
    text = (
        "the first layer of the ResNets: imagenet as published, or cifar (3x3, stride 1, no pool); a network is trained"
    )
    add(group, "stem", str, "|".join(STEMS), f"{text} for each")
    add(group, "T", int, "STEPS", "time steps of every coding, and frames of a recording")
    add(group, "K", int, "PHASES", "phases of the phase code, which turns the K bits of a pixel into spikes; 1 to 16")


def add_training_flags(
    parser: argparse.ArgumentParser,
    own: Mapping[str, object] = MappingProxyType({}),
    precision_flag: str = "train-precision",
) -> argparse._ArgumentGroup:
    """Add how networks are trained, and return these flags; `own` defaults go before those of Settings."""
    group = parser.add_argument_group("training")
    add(group, "epochs", int, "N", "passes over the training images", own.get("epochs"))
    add(group, "train-batch-size", int, "IMAGES", "images per training step", own.get("train_batch_size"))
    add(group, "lr", float, "RATE", "the learning rate, at the start", own.get("lr"))
    text = "of the learning rate: constant as in the paper, or falling to 0"
    add(group, "schedule", str, "constant|cosine", text, own.get("schedule"))
    add(group, "weight-decay", float, "L2", "L2 penalty of the optimizer")
    add(group, "optimizer", str, "|".join(OPTIMIZERS), "adam as in the paper, or sgd with momentum 0.9")
    text = "of training: fp32, or bf16: products of spikes and weights in bfloat16, weights and membranes in float32"
    how = {"choices": IN_TRAINING, "dest": "train_precision"}
    group.add_argument(f"--{precision_flag}", **how, help=f"{text} (default: fp32)")
    text = "turn training images left to right by chance, as in the paper"
    flips = own.get("flips", DEFAULTS["flips"])
    how = {"action": argparse.BooleanOptionalAction, "default": own.get("flips")}
    group.add_argument("--flips", **how, help=f"{text} (default: {'flips' if flips else 'no flips'})")
    text = f"how networks are made robust: {', '.join(DEFENCES)}; settings follow as in snn_rat:eps=4"
    add(group, "defence", str, "NAME", f"{text}; a network is trained for each")
    text = "of initial weights, order of training images, and PGD's random starts; a network is trained for each"
    add(group, "seed", str, "N", text)
    return group


def add_retrain_flag(group: argparse._ArgumentGroup) -> None:
    """Add --retrain."""
    group.add_argument("--retrain", action="store_true", help="train even where the cache has the weights")


def add_progress_flags(group: argparse._ArgumentGroup) -> None:
    """Add how progress is shown."""
    text = "auto (bars on a terminal, else lines), bars, lines, json (an object per event, on stderr) or none"
    group.add_argument("--progress", choices=("auto", *PROGRESS), default="auto", help=f"{text} (default: auto)")
    group.add_argument(
        "--quiet", action="store_const", const="none", dest="progress", help="the same as --progress none"
    )
