"""The founding paper's theorems 4.1 to 4.4, and the causes of zeros, on trained networks: what `fastsnn theorems` does.

Its figures are drawn by report/theorems.py.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from .. import analysis, files
from ..analysis import Attribution, Densities, GradientSNR, SharedZeros, Vulnerability
from . import inputs, networks, plan, sparsity
from .plan import Network, Settings
from .progress import Silent
from .report import written

TABLES = ("theorem-4.1.csv", "theorem-4.2.csv", "theorem-4.3.csv", "theorem-4.4.csv", "causes.csv")


class Extended(NamedTuple):
    """Theorem 4.2 at one number of steps: `trained_with` is how many the network was trained with."""

    trained_with: int
    snr: GradientSNR


class Measured(NamedTuple):
    """What was measured on one network: each theorem in numbers, and the causes of its zeros."""

    network: Network
    vulnerability: Vulnerability
    extended: list[Extended]
    shared: list[SharedZeros]
    densities: Densities
    causes: list[Attribution]


def check_settings(settings: Settings) -> None:
    """Refuse settings that the theorems cannot be measured with.

    Raises:
        ValueError: eps has more than one value, or is 0; images asks for more than there are, or for one alone.
    """
    sparsity.check_one_value(settings, "eps")
    if not settings.eps[0]:
        raise ValueError("eps is 0, expected the radius of theorem 4.1's ball, above 0.")
    if settings.images == 1:
        raise ValueError("images is 1, expected at least 2: the noise of one sample cannot be told (theorem 4.2).")
    sparsity.check_images(settings)


def measure(
    settings: Settings, progress: Silent, *, retrain: bool = False, train_each: bool = False
) -> Iterator[Measured]:
    """Yield, network by network, the theorems in numbers over the first test images.

    Theorem 4.1's noise is drawn batch by batch, so it depends on settings.batch_size; nothing else does.

    Args:
        settings: which networks and how to train them; images, and one eps: the radius of theorem 4.1's ball.
        progress: hears of every theorem.
        retrain: train even where the cache has the weights.
        train_each: for theorem 4.2 also train a network for each number of steps; otherwise only the one that was
            trained with T steps is run for fewer.

    Raises:
        ValueError: see check_settings; or a network begins with another layer than theorem 4.4 is about.
        OSError: the cache of weights cannot be written to.
        FloatingPointError: training diverged.
    """
    check_settings(settings)
    device = plan.device(settings.device)
    for network in plan.networks(settings):
        net, x, y = _prepared(settings, network, device, progress, retrain)
        batches = list(zip(x.split(settings.batch_size, 1), y.split(settings.batch_size), strict=True))
        stage = functools.partial(_stage, progress, network, len(y))
        with stage("theorem 4.1"):
            vulnerability = _vulnerability(settings, network, net, batches, progress)
        with stage("theorem 4.2"):
            snr = analysis.gradient_snr(net, x, y, T=steps_up_to(settings.T))
            extended = [Extended(settings.T, one) for one in snr]
        for T in steps_up_to(settings.T)[:-1] if train_each else ():
            progress.say(f"{network}: theorem 4.2 with a network of T = {T}")
            short = _prepared(replace(settings, T=T), network, device, progress, retrain)
            with stage(f"theorem 4.2, trained with T = {T}"):
                extended.append(Extended(T, *analysis.gradient_snr(*short, T=[T])))
        with stage("theorem 4.3"):
            shared = analysis.shared_zeros(net, x, y)
        with stage("theorem 4.4"):
            densities = analysis.densities(net, x, y)
        with stage("causes of zeros"):
            causes = analysis.attribute_zeros(net, batches)
        yield Measured(network, vulnerability, extended, shared, densities, causes)


@contextlib.contextmanager
def _stage(progress: Silent, network: Network, images: int, name: str) -> Iterator[None]:
    progress.start(f"{network}: {name}", images)
    yield
    progress.finish()


def _prepared(
    settings: Settings, network: Network, device: torch.device, progress: Silent, retrain: bool
) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Return a trained network, and the test images as its input [T, B, C, H, W] with their labels [B]."""
    train_set = inputs.load(settings, network.data, "train")
    net, _ = networks.trained(settings, network, train_set, device, progress, retrain=retrain)
    test_set = inputs.load(settings, network.data, "test").first(settings.images)
    encode = inputs.encoder(settings, network, inputs.generator(network.seed, device))
    return net, encode(test_set.images.to(device)), test_set.labels.to(device)


def _vulnerability(settings: Settings, network: Network, net: nn.Module, batches, progress: Silent) -> Vulnerability:
    generator, parts = torch.Generator(batches[0][0].device).manual_seed(network.seed), []
    for x, y in batches:
        parts.append(analysis.vulnerability(net, x, y, settings.eps[0] / 255, generator=generator))
        progress.advance(len(y))
    return Vulnerability(*map(torch.cat, zip(*parts, strict=True)))


def steps_up_to(T: int) -> list[int]:
    """Return the numbers of steps at which theorem 4.2 is measured: the powers of two below T, and T."""
    return [*(2**i for i in range((T - 1).bit_length())), T]


def write_csv(settings: Settings, found: Sequence[Measured], out: Path) -> None:
    """Write the files TABLES, each whole or not at all; shares from 0 to 1, eps in 1/255, unknown values empty.

    4.1 and 4.4 have a line per network and image, 4.2 per network and number of steps, 4.3 and causes per layer.
    """
    at, T = {"eps_255": settings.eps[0]}, {"T": settings.T}
    rows = {name: [] for name in TABLES}
    for one in found:
        images = len(one.vulnerability.random)
        per_image = [
            {"image": i} | dict(zip(Vulnerability._fields, row, strict=True))
            for i, row in enumerate(torch.stack(one.vulnerability, 1).tolist())
        ]
        densities = one.densities
        columns = (densities.at_weight.tolist(), densities.at_input.tolist(), densities.bound.tolist())
        of_weights = [
            {"image": i, "at_weight": a, "at_input": b, "factor": densities.factor, "bound": bound}
            for i, (a, b, bound) in enumerate(zip(*columns, strict=True))
        ]
        tables = (
            [T | at | row for row in per_image],
            [{"trained_with": row.trained_with} | row.snr._asdict() | {"images": images} for row in one.extended],
            [T | row._asdict() | {"images": images} for row in one.shared],
            [T | row for row in of_weights],
            [T | row._asdict() | {"images": images} for row in one.causes],
        )
        about = dict(zip((field.name for field in fields(Network)), astuple(one.network), strict=True))
        about |= {"width": settings.width, "K": settings.K}
        for name, table in zip(TABLES, tables, strict=True):
            rows[name] += [about | row for row in table]
    for name, table in rows.items():
        files.write(out / name, _csv(table))


def _csv(rows: Sequence[dict]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([written(None if value != value else value) for value in row.values()] for row in rows)
    return text.getvalue().encode()


def summary(settings: Settings, one: Measured) -> str:
    """Return what the theorems come to on one network: a table of medians over images, and the layers with zeros."""
    v, d = one.vulnerability, one.densities

    def median(values: torch.Tensor, form: str) -> str:
        return format(values.median().item(), form)

    lines = [
        ("4.1", "rho_adv / rho_rand, measured", median(v.ratio, ",.1f")),
        ("", "the same to first order", median(v.ratio_first_order, ",.0f")),
        ("", "its bound 3 |g|_0", median(v.bound, ",.0f")),
        ("", "rho_rand, measured / first order", median(v.random / v.random_first_order, ",.3g")),
        ("", "rho_adv, measured / first order", median(v.adversarial / v.adversarial_first_order, ",.3g")),
    ]
    for i, (trained_with, (T, signal, noise, snr)) in enumerate(one.extended):
        trained = "" if trained_with == settings.T else ", trained so"
        told = f"{snr:.2g}  (signal {signal:.3g}, noise {noise:.3g})"
        lines.append(("4.2" if i == 0 else "", f"SNR at T = {T}{trained}", told))
    both = [row.correlation for row in one.shared if row.correlation == row.correlation]
    told = f"{min(both):.2f} to {max(both):.2f} ({len(both)} layers)" if both else "none vary"
    lines += [
        ("4.3", "correlation of zeros at x, in weights", told),
        ("4.4", "density of the first weight gradient", median(d.at_weight, ".3f")),
        ("", "density of the input gradient", median(d.at_input, ".4f")),
        ("", "factor", format(d.factor, ",.0f")),
    ]
    head = f"{one.network}: {len(v.random)} images, eps = {written(settings.eps[0])}/255; medians over images"
    rows = [f"{theorem:5}{name:40}{value}" for theorem, name, value in lines]
    return "\n".join([head, *rows, *_causes(one.causes)])


def _causes(causes: Iterable[Attribution]) -> list[str]:
    """Return lines of a table in percent of the layers that have zeros; those that show the same share a line."""
    shown: dict[tuple[str, ...], list[str]] = {}
    for row in causes:
        if row.zeros > 0:
            shown.setdefault(tuple(f"{100 * share:.2f}" for share in row[2:]), []).append(row.layer)
    if not shown:
        return ["no layer's input has zeros in its gradient"]
    names = ("zeros", "maxpool", "stride", "neuron", "junct.", "archit.", "natural", "left")
    head = f"{'zeros at the input, %':24}" + "".join(f"{name:>8}" for name in names)
    return [head] + [
        f"{_short(layers):24}" + "".join(f"{share:>8}" for share in shares) for shares, layers in shown.items()
    ]


def _short(layers: Sequence[str]) -> str:
    more = f" +{len(layers) - 1}" if layers[1:] else ""
    return layers[0][: 23 - len(more)] + more


def default_out(settings: Settings) -> Path:
    """Return runs/theorems-<data>-<hash of the settings>."""
    digest = hashlib.sha256(json.dumps(plan.told(settings), sort_keys=True).encode()).hexdigest()
    return Path("runs", f"theorems-{'-'.join(settings.data)}-{digest[:8]}")
