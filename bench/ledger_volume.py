"""A large ledger, 2,000 cells of 10,000 images: how fast it is written, gone on with and reported, and in what memory.

    python -m bench.ledger_volume [--cells-per-pass 10] [--images 10000] [--out FOLDER]

The outcomes are random; plan, hashes, ledger, resume and report are those of a sweep. Each step is its own process,
so that its memory is its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy
import torch

from fastsnn import data, report
from fastsnn.sweep import Ledger, Settings, networks, plan, run
from fastsnn.sweep.engines import Engine
from fastsnn.sweep.ledger import Outcome
from fastsnn.sweep.progress import Silent
from fastsnn.sweep.run import missing

GOALS = {"written": "50,000 rows/s or more", "gone on with": "under 5 s", "reported": "under 60 s"}


def settings(cells_per_pass: int) -> Settings:
    """Return a plan of 2 networks x 2 poolings x 10 seeds x 5 passes."""
    return Settings(
        data=("volume",),
        models=("sew_resnet18", "sew_resnet50"),
        seeds=tuple(range(10)),
        steps=(7, 20),
        restarts=(1, 5),
        eps=tuple(range(1, cells_per_pass + 1)),
    )


def make_data(images: int) -> None:
    """Let a data set of so many black images have the name "volume"."""

    def load(split: str) -> data.Dataset:
        labels = torch.arange(images) % 10
        return data.Dataset(
            torch.zeros(images, 3, 32, 32, dtype=torch.uint8), labels, tuple("0123456789"), "volume", split
        )

    data.DATASETS["volume"] = load


def write(folder: Path, images: int, cells_per_pass: int) -> int:
    """Write all cells; return how many images that makes."""
    chosen, generator, rows = settings(cells_per_pass), numpy.random.default_rng(0), 0
    train_set, test_set = data.load("volume", "train"), data.load("volume", "test")
    with Ledger.write(folder) as ledger:
        number = ledger.begin_run({}, {}, {})
        for network in plan.networks(chosen):
            device = torch.device("cpu")
            description = networks.describe(chosen, network, train_set, device)
            weights = str(network)
            passes = plan.passes(chosen, network)
            arithmetic = networks.arithmetic(device)
            for cells, _ in missing(chosen, ledger, test_set, weights, arithmetic, passes):
                outcomes = [_outcome(generator, images) for _ in cells]
                ledger.add(number, network, description, weights, cells, outcomes, 1.0)
                rows += len(cells) * images
    return rows


def go_on(folder: Path, images: int, cells_per_pass: int) -> int:
    """Run a sweep that has nothing left to do; return the number of cells."""
    chosen, cells = settings(cells_per_pass), _Counted()
    with Ledger.write(folder) as ledger:
        done = list(run(chosen, ledger, ledger.begin_run({}, {}, {}), Engine(chosen), cells))
        assert done == [] and cells.done == len(ledger.results()), "something was done again"
    return cells.done


def make_report(folder: Path, images: int, cells_per_pass: int) -> int:
    """Write the report without pictures, for which there are no weights; return its bytes."""
    return report.write([folder], folder, with_pictures=False)[0].stat().st_size


class _Counted(Silent):
    done = 0

    def cells_done(self, count: int) -> None:
        self.done += count


def _outcome(generator: numpy.random.Generator, images: int) -> Outcome:
    correct = generator.random(images) < 0.5
    return Outcome(
        correct | (generator.random(images) < 0.5), correct, ~correct, generator.random(images, numpy.float32)
    )


def _step(work: Callable, images: int, arguments: tuple, answer) -> None:
    make_data(images)
    before = time.perf_counter()
    result = work(*arguments)
    seconds = time.perf_counter() - before
    answer.put((result, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells-per-pass", type=int, default=10)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="keep the folder here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        for name, work in (("written", write), ("gone on with", go_on), ("reported", make_report)):
            answer = context.Queue()
            arguments = (folder, chosen.images, chosen.cells_per_pass)
            process = context.Process(target=_step, args=(work, chosen.images, arguments, answer))
            process.start()
            result, seconds, mebibytes = answer.get()
            process.join()
            what = {"written": f"{result / seconds:,.0f} rows/s", "gone on with": f"{result:,} cells"}.get(name, "")
            print(f"{name:<13} {seconds:7.1f} s  {mebibytes:6.0f} MiB  {what:<20} (goal: {GOALS[name]})", flush=True)
        size = sum(path.stat().st_size for path in folder.glob("ledger.sqlite*")) / 2**20
        print(f"ledger        {size:,.0f} MiB on the disk")


if __name__ == "__main__":
    main()
