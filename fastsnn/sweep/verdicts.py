"""Judges a sweep's trained networks: `fastsnn verdict`. Verdicts go to the sweep's ledger, a network at a time.

The ledger says which networks there are and how their input is coded; their weights are in the cache. What PGD is
transferred from is the network that is trained alike and has the other pooling, where the ledger has one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ..analysis import Verdict, verdict
from ..data import Dataset
from ..ops import check
from . import inputs, machine, networks, weights
from .judged import JudgedLedger
from .ledger import LedgerError
from .plan import DEFAULTS, Network, Settings, device
from .progress import Silent
from .report import Row

RECIPE = 1  # of verdicts: raise it when a change of code changes what they see
_BATCH = 60  # samples per pass; no result depends on it but that with the batch's statistics


@dataclass(frozen=True)
class Court:
    """How networks are judged; see analysis.verdict.

    Attributes:
        eps: budget in 1/255 of the encoded input, the paper's; above 0 and below 255.
        alpha: step of PGD, absolute; the paper's.
        steps: of PGD, the paper's.
        images: the first so many test images.
        noises: for each image of the random search; 10,000 are what evaluations ask for.
        noise_images: on how many of the images that PGD leaves right noise is tried.
        queries: of Square for each image.

    Raises:
        ValueError, TypeError: one is out of range; the message names it.
    """

    eps: float = 6
    alpha: float = 0.01
    steps: int = 7
    images: int = 120
    noises: int = 100
    noise_images: int = 16
    queries: int = 200

    def __post_init__(self):
        if check.number("eps", self.eps, above=0) >= 255:
            raise ValueError(f"eps is {self.eps:g} (in 1/255), expected less than 255, which allows any input.")
        check.number("alpha", self.alpha, above=0)
        for name, least in (("steps", 1), ("images", 1), ("noises", 1), ("noise_images", 1), ("queries", 0)):
            check.integer(name, getattr(self, name), at_least=least)


class Judged(NamedTuple):
    """A network of a ledger, its number there, and its verdict; None for one that was there already."""

    network: Network
    number: int
    verdict: Verdict | None


def judge(folder: Path, court: Court, progress: Silent, *, device_name: str = "auto") -> Iterator[Judged]:
    """Yield, network by network, the verdict once it is in the ledger; one that is there is not made again.

    Args:
        folder: of a sweep.
        court: how to judge.
        progress: hears of every check.
        device_name: where to compute, as in plan.Settings.

    Raises:
        LedgerError: the folder holds no ledger with a cell, or another run is at work on it.
        FileNotFoundError: the cache does not have the weights any more, or the files of a data set are gone.
        CorruptWeightsError: weights are damaged.
        ValueError: there are fewer test images than asked for.
    """
    where = device(device_name)
    JudgedLedger.read(folder).close()  # refuses a folder without a ledger, which write() would begin
    with JudgedLedger.write(folder) as ledger:
        rows = {row["network"]: row for row in ledger.results()}
        if not rows:
            raise LedgerError(f"{folder} has no finished cell yet, so that there is no network to judge")
        root = ledger.runs()[-1]["settings"].get("root")
        run = None
        for number, row in rows.items():
            settings, network = _settings(row, root), Network.of(row)
            test_set = inputs.load(settings, network.data, "test")
            if court.images > len(test_set):
                raise ValueError(f"images is {court.images}, but {network.data} has {len(test_set)} test images.")
            test_set = test_set.first(court.images)
            own, other = ledger.weights_hash(number), _other(ledger, rows, number)
            transferred = None if other is None else ledger.weights_hash(other)
            determined_by = {
                **{"recipe": RECIPE, "weights": own, "transferred_from": transferred},
                **{"images_sha256": test_set.sha256(), "T": settings.T, "K": settings.K, "seed": network.seed},
                **{"batch_size": _BATCH, **networks.coding(network), **networks.arithmetic(where), **asdict(court)},
            }
            content = hashlib.sha256(json.dumps(determined_by, sort_keys=True).encode()).hexdigest()
            if ledger.has_verdict(content):
                progress.say(f"{network}: judged already")
                yield Judged(network, number, None)
                continue
            if run is None:
                asked = {"verdict": asdict(court)}
                run = ledger.begin_run(asked | {"root": root}, machine.versions(), machine.describe())
            began = time.perf_counter()
            nets = {one: Network.of(rows[one]) for one in (number, other) if one is not None}
            built = [
                _built(settings, about, test_set.num_classes, _state(ledger, one)).to(where)
                for one, about in nets.items()
            ]
            found = _judged(settings, network, built, test_set, court, progress)
            ledger.add_verdict(run, number, content, determined_by, found, time.perf_counter() - began)
            yield Judged(network, number, found)
        if run is not None:
            ledger.finish_run(run, ())


def _judged(
    settings: Settings, network: Network, nets: list[nn.Module], test_set: Dataset, court: Court, progress: Silent
) -> Verdict:
    """Return the verdict on the first of `nets`; PGD is transferred from the second, if there is one."""
    where = next(nets[0].parameters()).device
    encode = inputs.encoder(settings, network, inputs.generator(network.seed, where))
    x, y = encode(test_set.images.to(where)), test_set.labels.to(where)
    progress.start(f"{network}: verdict", len(y))
    how = {"draws": court.noises, "search_images": court.noise_images, "queries": court.queries}
    how |= {"eps": court.eps / 255, "alpha": court.alpha, "steps": court.steps, "batch_size": _BATCH}
    how |= {"seed": network.seed, "on_check": lambda row: progress.say(f"{network}: {row.check}: {row.result}")}
    found = verdict(nets[0], x, y, other=nets[1] if nets[1:] else None, **how)
    progress.advance(len(y))
    progress.finish()
    return found


def _state(ledger: JudgedLedger, number: int) -> dict[str, torch.Tensor]:
    """Return a network's trained weights: the cache's, or those of a file that a sweep was given."""
    given = (run["settings"].get("weights") for run in ledger.runs())
    files = [weights.path(ledger.description(number)), *(Path(file) for file in given if file)]
    for file in files:
        state = weights.load(file)
        if state is not None and weights.checksum(state) == ledger.weights_hash(number):
            return state
    raise FileNotFoundError(f"{files[0]} is not there any more, or holds other weights; run the sweep once more before")


def _other(ledger: JudgedLedger, rows: dict[int, Row], number: int) -> int | None:
    """Return the network that differs in its pooling alone; None if there is none."""
    own = ledger.description(number)
    described = ((other, ledger.description(other)) for other in rows)
    alike = (other for other, its in described if its["pool"] != own["pool"] and its | {"pool": own["pool"]} == own)
    return next(alike, None)


def _built(settings: Settings, network: Network, classes: int, state: dict[str, torch.Tensor]) -> nn.Module:
    net = networks.untrained(settings, network, classes)
    net.load_state_dict(state)
    return net.eval()


def _settings(row: Row, root: str | None) -> Settings:
    """Return the settings that say how a network is built and what it sees."""
    size = row["frame_size"] or DEFAULTS["frame_size"]
    return Settings(root=root, frame_size=size, **{name: row[name] for name in ("width", "T", "K")})
