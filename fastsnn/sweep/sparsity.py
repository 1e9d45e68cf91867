"""Gradient sparsity of trained networks: what `fastsnn sparsity` measures and writes, without its figures."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import NamedTuple

import torch

from .. import analysis, files
from ..analysis import LayerGradient, Sparsity
from ..data import Dataset
from ..ops import check
from . import by_name, inputs, networks, plan
from .plan import Network, Settings
from .progress import Silent
from .report import written

ATTACKS = ("none", *by_name.ATTACKS)
TABLE = "sparsity.csv"


class Measured(NamedTuple):
    """The gradients of one network: `sparsity` has a row per layer."""

    network: Network
    sparsity: Sparsity


def check_single(settings: Settings) -> None:
    """Refuse settings that ask for several attacks: their gradients would be mixed.

    Raises:
        ValueError: eps, steps or bn has more than one value; settings.images asks for more images than there are.
    """
    for name in ("eps", "steps", "bn"):
        check_one_value(settings, name)
    check_images(settings)


def check_one_value(settings: Settings, name: str) -> None:
    """Refuse settings with a list of several values under a name.

    Raises:
        ValueError: there are several.
    """
    values = getattr(settings, name)
    if len(values) > 1:
        raise ValueError(f"{name} is {', '.join(map(str, values))}, expected one value.")


def check_images(settings: Settings) -> None:
    """Refuse settings that ask for more test images than there are.

    Raises:
        ValueError: settings.images does.
    """
    for name in settings.data:
        available = len(inputs.load(settings, name, "test"))
        if settings.images is not None and settings.images > available:
            raise ValueError(f"images is {settings.images}, but {name} has {available} test images.")


def measure(
    settings: Settings,
    attack: str,
    progress: Silent,
    *,
    per_step: bool = False,
    retrain: bool = False,
    fused: bool = False,
) -> Iterator[Measured]:
    """Yield, network by network, the gradient's zeros and norms at every layer over all test images.

    Args:
        settings: which networks, how to train and to attack them; eps, steps and bn have one value each.
        attack: one of ATTACKS: "pgd" averages over its steps (the paper's figures 3 and 5), as all iterative ones do;
            "fgsm" and "none" have one gradient each.
        progress: hears of every batch.
        per_step: also a row for each time step.
        retrain: train even where the cache has the weights.
        fused: count inside the engine's layers; see analysis.gradient_sparsity.

    Raises:
        ValueError: attack is unknown, or settings ask for several; see check_single.
        OSError: the cache of weights cannot be written to.
        FloatingPointError: training diverged.
    """
    check.one_of("attack", attack, ATTACKS)
    check_single(settings)
    device = plan.device(settings.device)
    for network in plan.networks(settings):
        train_set = inputs.load(settings, network.data, "train")
        net, _ = networks.trained(settings, network, train_set, device, progress, retrain=retrain)
        test_set = inputs.load(settings, network.data, "test").first(settings.images)
        progress.start(f"{network}: gradients", len(test_set))
        crafted = None if attack == "none" else _attack(settings, network, net, attack, device)
        how = {"bn": settings.bn[0], "per_step": per_step, "on_batch": progress.advance}
        how["engine"] = "auto" if fused else None
        found = analysis.gradient_sparsity(net, _batches(settings, network, test_set, device), attack=crafted, **how)
        progress.finish(f"{100 * found[0].zeros_in:.2f} % zeros at the input")
        yield Measured(network, found)


def _batches(
    settings: Settings, network: Network, test_set: Dataset, device: torch.device
) -> Iterator[analysis.sparsity.Batch]:
    encode = inputs.encoder(settings, network, inputs.generator(network.seed, device))
    for images, labels in zip(
        test_set.images.split(settings.batch_size), test_set.labels.split(settings.batch_size), strict=True
    ):
        yield encode(images.to(device)), labels.to(device)


def _attack(settings: Settings, network: Network, net: torch.nn.Module, name: str, device: torch.device):
    """Return the attack; every image has random numbers of its own, which do not depend on its batch."""
    draws = torch.Generator().manual_seed(network.seed)

    def crafted(x, y):
        seeds = torch.randint(2**63 - 1, (len(y),), generator=draws).tolist()
        generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        how = {"alpha": settings.alpha, "steps": settings.steps[0], "restarts": 1, "generator": generators}
        return by_name.craft(name, net, x, y, how, eps=settings.eps[0] / 255, bn=settings.bn[0])

    return crafted


def write_csv(settings: Settings, attack: str, found: Sequence[Measured], path: Path, *, fused: bool = False) -> None:
    """Write a line per network, layer and time step, whole or not at all; shares from 0 to 1, eps in 1/255.

    The column `counted` says where: "hooks" on plain layers, or "kernels" of fused ones.
    """
    how = {"width": settings.width, "T": settings.T, "K": settings.K, "attack": attack, "bn": settings.bn[0]}
    how["eps_255"] = None if attack == "none" else settings.eps[0]
    for field, value in (("steps", settings.steps[0]), ("alpha", settings.alpha)):
        how[field] = value if attack != "none" and by_name.takes(attack, field) else None
    how["counted"] = "kernels" if fused else "hooks"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Network)]
    writer.writerow([*names, *how, "gradients", *LayerGradient._fields])
    for network, sparsity in found:
        about = (*astuple(network), *how.values(), sparsity.samples)
        for row in sparsity:
            values = (None if isinstance(value, float) and value != value else value for value in row)
            writer.writerow([written(value) for value in (*about, *values)])
    files.write(path, text.getvalue().encode())


def default_out(settings: Settings, attack: str, *, fused: bool = False) -> Path:
    """Return runs/sparsity-<data>-<hash of the settings and the attack>, with -fused behind it if that is so."""
    digest = hashlib.sha256(json.dumps([plan.told(settings), attack], sort_keys=True).encode()).hexdigest()
    return Path("runs", f"sparsity-{'-'.join(settings.data)}-{digest[:8]}{'-fused' if fused else ''}")


def make_folder(out: Path, table: str = TABLE) -> None:
    """Make the folder, or take one that an earlier measurement left: `table` is a file that it wrote.

    Raises:
        FileExistsError: it holds other things, or there is a file in its place.
        OSError: it cannot be made.
    """
    others = [path for path in out.iterdir() if not path.name.startswith(".")] if out.is_dir() else []
    if (out.exists() and not out.is_dir()) or (others and not (out / table).exists()):
        raise FileExistsError(
            f"{out} exists and is neither empty nor the folder of a measurement; name another: --out."
        )
    out.mkdir(parents=True, exist_ok=True)
