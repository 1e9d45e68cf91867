"""A sweep's folder: results.csv after every attack, accuracy.png at the end, run.json with how they came about."""

from __future__ import annotations

import datetime
import importlib.util
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from .. import data
from . import files, machine, report, weights
from .plan import Settings
from .progress import Silent
from .run import Done, Row, run

RESULTS, FIGURE, RECORD = "results.csv", "accuracy.png", "run.json"
_NEEDS = {"sklearn": "scikit-learn", "safetensors": "safetensors", "rich": "rich", "matplotlib": "matplotlib"}


def default_out(settings: Settings) -> Path:
    """Return runs/<data>-<date>-<time>."""
    return Path("runs", f"{settings.data}-{datetime.datetime.now():%Y%m%d-%H%M%S}")


def prepare(settings: Settings, out: Path) -> None:
    """Refuse a sweep that cannot work before it begins, and make its folder.

    Raises:
        ImportError: an optional package is missing; the message names the extra.
        ValueError: settings.images asks for more images than there are.
        FileExistsError: there is something in the folder, or a file in its place.
        OSError: the folder, or the cache of weights, cannot be made or written to.
    """
    missing = [package for module, package in _NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f'a sweep needs {", ".join(missing)}; install with: pip install "fastsnn[sweep]"')
    if settings.images is not None and settings.images > (available := len(data.load(settings.data, "test"))):
        raise ValueError(f"images is {settings.images}, but {settings.data} has {available} test images.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not an empty folder; name another one with --out.")
    weights.directory()
    out.mkdir(parents=True, exist_ok=out.exists())  # two runs that begin in one second do not share a folder


def sweep(settings: Settings, out: Path, progress: Silent, *, retrain: bool = False) -> Iterator[Done]:
    """Run a sweep into the folder `out` (see `prepare`); yield every stage once its results are on the disk.

    Whenever it stops, what lies in the folder is whole: the rows so far, and a run.json whose "finished" is null.

    Args:
        settings: what to do.
        out: an empty folder.
        progress: hears of every batch.
        retrain: train even where the cache has the weights.

    Raises:
        OSError: a file cannot be written.
        FloatingPointError: training diverged.
    """
    began = time.perf_counter()
    rows: list[Row] = []
    record = {
        "started": _now(),
        "finished": None,
        "seconds": None,
        "settings": asdict(settings),
        "versions": machine.versions(),
        "machine": machine.describe(),
        "weights": {},
        "stages": [],
    }
    _write_record(record, out)
    for done in run(settings, progress, retrain=retrain):
        rows += done.rows
        record["stages"].append({"stage": str(done.stage), "seconds": round(done.seconds, 3)})
        if done.weights is not None:
            record["weights"][f"{done.stage.model} {done.stage.pool}"] = done.weights
        if done.rows:
            report.write_csv(rows, settings, out / RESULTS)
        _write_record(record, out)
        yield done
    report.write_figure(rows, settings, out / FIGURE)
    record |= {"finished": _now(), "seconds": round(time.perf_counter() - began, 3)}
    _write_record(record, out)


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _write_record(record: dict, out: Path) -> None:
    files.write(out / RECORD, (json.dumps(record, indent=2) + "\n").encode())
