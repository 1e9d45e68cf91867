"""A sweep's folder: the ledger, and what is drawn from it: results.csv after every pass, accuracy.png at the end.

Both show the cells that the plan asks for; the ledger keeps those of other plans too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from . import figure, inputs, machine, networks, report, weights
from .engines import engine
from .ledger import FILE
from .own_cells import OwnCells
from .plan import Settings, told
from .progress import Silent
from .run import Done, run

RESULTS, FIGURE = "results.csv", "accuracy.png"
_NEEDS = {
    "sklearn": "scikit-learn",
    "safetensors": "safetensors",
    "rich": "rich",
    "matplotlib": "matplotlib",
    "filelock": "filelock",
    "jinja2": "jinja2",
}


def default_out(settings: Settings, plan: Path | None = None) -> Path:
    """Return runs/<plan's name>, or runs/<data>-<hash of the settings>: the same command finds the same folder."""
    if plan is not None:
        return Path("runs", plan.stem)
    digest = hashlib.sha256(json.dumps(told(settings), sort_keys=True).encode()).hexdigest()
    return Path("runs", f"{'-'.join(settings.data)}-{digest[:8]}")


def check(settings: Settings, out: Path) -> None:
    """Refuse a sweep that cannot work before it begins.

    Raises:
        ImportError: an optional package is missing; the message names the extra.
        ValueError: settings.images asks for more images than there are, or a file of a data set is damaged; the weights
            that are given were trained otherwise.
        CorruptWeightsError: the weights that are given cannot be read.
        FileNotFoundError: they, or a data set, are not there.
        FileExistsError: the folder holds something but no ledger, or there is a file in its place.
        OSError: a file of a data set cannot be read, or be kept in the cache.
    """
    if missing := missing_packages():
        raise ImportError(missing)
    networks.check_weights(settings)
    others = [path for path in out.iterdir() if not path.name.startswith(".")] if out.is_dir() else []
    if (out.exists() and not out.is_dir()) or (others and not (out / FILE).exists()):
        raise FileExistsError(f"{out} exists and is neither empty nor the folder of a sweep; name another with --out.")
    for name in settings.data:
        inputs.load(settings, name, "train")  # event frames are cached now
        available = len(inputs.load(settings, name, "test"))
        if settings.images is not None and settings.images > available:
            raise ValueError(f"images is {settings.images}, but {name} has {available} test images.")


def prepare(settings: Settings, out: Path) -> None:
    """Refuse a sweep that cannot work before it begins, and make its folder.

    Raises:
        ImportError, ValueError, FileNotFoundError, FileExistsError: as in `check`.
        OSError: as there; the folder, or the cache of weights, cannot be made or written to.
    """
    check(settings, out)
    weights.directory()
    out.mkdir(parents=True, exist_ok=True)


def missing_packages() -> str:
    """Return a sentence that says what is to be installed, empty if all is there."""
    missing = [package for module, package in _NEEDS.items() if importlib.util.find_spec(module) is None]
    return f'a sweep needs {", ".join(missing)}; install with: pip install "fastsnn[sweep]"' if missing else ""


def sweep(
    settings: Settings,
    out: Path,
    progress: Silent,
    *,
    engine_name: str = "local",
    address: str | None = None,
    retrain: bool = False,
) -> Iterator[Done]:
    """Run what is missing of a sweep in the folder `out` (see `prepare`); yield what is done once it is on the disk.

    Whenever it stops, the ledger holds whole cells, and the same call goes on from there.

    Args:
        settings: what to do.
        out: the folder.
        progress: hears of every batch.
        engine_name: "local" or "ray", see engines.engine.
        address: of a Ray cluster.
        retrain: train even where the cache has the weights.

    Raises:
        LedgerError: another run is at work in the folder; the ledger is of another version or cannot be written to.
        ImportError: Ray is asked for and not installed.
        EngineError: workers cannot be had, or are lost.
        OSError: a file cannot be written.
        FloatingPointError: training diverged.
    """
    with OwnCells.write(out) as ledger, engine(engine_name, settings, address) as workers:
        number = ledger.begin_run(asdict(settings), machine.versions(), machine.describe())
        for done in run(settings, ledger, number, workers, progress, retrain=retrain):
            if done.cells:
                report.write_csv(ledger.own(), out / RESULTS)
            yield done
        rows = ledger.own()
        report.write_csv(rows, out / RESULTS)
        figure.write(rows, out / FIGURE)
        ledger.finish_run(number, [row["cell"] for row in rows])
