"""The `fastsnn` command.

    fastsnn sweep     train, attack, and show the accuracies
    fastsnn doctor    what is installed, what runs, and whether it computes rightly

Exit codes: 0 done, 1 a check or a computation failed, 2 refused before any work, 130 interrupted.
"""

from __future__ import annotations

import os

# Before torch is loaded: OpenMP threads that spin while they wait made sweeps 2 to 3 times slower on shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch

from . import __version__, doctor
from .data import DATASETS
from .models import BUILDERS
from .sweep import Row, Settings, default_out, prepare, report, sweep, weights
from .sweep.folder import FIGURE, RECORD, RESULTS
from .sweep.plan import DEFAULTS
from .sweep.progress import Bars, Lines, Silent

_SWEEP = """\
Train networks, attack every test image with every attack and budget, and show the accuracies. By default: SEW-ResNet18
with max and with average pooling on handwritten digits; a few minutes on two cores without a GPU. Trained weights are
cached in $FASTSNN_CACHE (by default ~/.cache/fastsnn), so that the next sweep over the same networks skips training."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name; None takes sys.argv) and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        return _say(arguments, "interrupted; there was nothing to save.", 130)


class _Parser(argparse.ArgumentParser):
    """Refuses with one sentence instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.rstrip('.')}. See {self.prog} --help.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastsnn", description="Robustness studies of spiking neural networks.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fastsnn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    brief = "train networks, attack them over a range of budgets, show the accuracies"
    _add_flags(commands.add_parser("sweep", help=brief, description=_SWEEP, allow_abbrev=False))
    brief = "show versions, devices and backends, and check every kernel against the reference"
    command = commands.add_parser("doctor", help=brief, description=f"{brief.capitalize()}.", allow_abbrev=False)
    command.set_defaults(run=lambda _: doctor.main())
    return parser


def _add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `fastsnn sweep` its flags; their defaults are those of Settings."""

    def add(group, flag: str, kind: type, metavar: str, text: str, field: str | None = None) -> None:
        field = field or flag.replace("-", "_")
        default = DEFAULTS[field]
        many = {"nargs": "+"} if isinstance(default, tuple) else {}
        shown = "all" if default is None else " ".join(map(str, default)) if many else default
        text = f"{text} (default: {shown})"
        group.add_argument(f"--{flag}", dest=field, default=default, type=kind, metavar=metavar, help=text, **many)

    group = parser.add_argument_group("networks and data (lists with spaces or commas)")
    add(group, "data", str, "NAME", f"data set: {', '.join(DATASETS)}")
    add(group, "models", str, "NAME", f"networks: {', '.join(BUILDERS)}")
    add(group, "width", int, "PLANES", "planes of the first stage, doubled in each later one; 64 as published")
    add(group, "pool", str, "max|avg", "pooling in the stem; a network is trained for each", field="pools")
    add(group, "T", int, "STEPS", "time steps of the phase code, which turns the K bits of a pixel into spikes")
    add(group, "K", int, "PHASES", "phases of the phase code, 1 to 16")

    group = parser.add_argument_group("attacks")
    add(group, "attacks", str, "fgsm|pgd", "attacks to make")
    add(group, "eps", str, "EPS", "budgets in 1/255 of the encoded input, whose spikes are 0 or 1; 0 to 255")
    add(group, "steps", int, "N", "iterations of PGD")
    add(group, "alpha", float, "STEP", "step of PGD on the encoded input, absolute (not in 1/255), as in the paper")
    add(group, "images", int, "N", "attack the first N test images only")
    text = "batch norm while an attack is made: running statistics, the batch's, or the paper's train mode"
    add(group, "bn", str, "frozen|batch|drift", f"{text}, in which every pass moves the running ones")
    text = "of attacks and scores (training is always fp32): SpikingJelly's order of operations bit for bit,"
    add(group, "precision", str, "reference|fp32|fast", f"{text} float32 with layers fused, or bfloat16 products")

    group = parser.add_argument_group("training")
    add(group, "epochs", int, "N", "passes over the training images")
    add(group, "train-batch-size", int, "IMAGES", "images per training step")
    add(group, "lr", float, "RATE", "Adam's learning rate, at the start")
    add(group, "schedule", str, "constant|cosine", "of the learning rate: constant as in the paper, or falling to 0")
    add(group, "weight-decay", float, "L2", "Adam's L2 penalty")
    add(group, "seed", int, "N", "of initial weights, order of training images, and PGD's random starts")
    group.add_argument("--retrain", action="store_true", help="train even where the cache has the weights")

    group = parser.add_argument_group("running")
    text = "images per batch when attacking and scoring; auto: as many as are fast on a CPU or fit a GPU's memory,"
    add(group, "batch-size", _images, "IMAGES|auto", f"{text} with --bn frozen only")
    add(group, "device", str, "cpu|cuda|cuda:N|auto", "where to compute; auto takes a GPU if there is one")
    text = "an empty or new folder for results.csv, accuracy.png and run.json (default: runs/<data>-<date>-<time>)"
    group.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    group.add_argument("--quiet", action="store_true", help="no progress, only the table")
    parser.set_defaults(run=_sweep)


def _sweep(arguments: argparse.Namespace) -> int:
    try:
        settings = _settings(arguments)
        out = arguments.out or default_out(settings)
        prepare(settings, out)
    except (ValueError, TypeError, ImportError, OSError) as error:
        return _say(arguments, _sentence(error), 2)
    rows: list[Row] = []
    try:
        with _progress(arguments.quiet) as progress:
            progress.say(f"networks: {len(settings.models) * len(settings.pools)}; results go to {out}")
            for done in sweep(settings, out, progress, retrain=arguments.retrain):
                rows += done.rows
    except KeyboardInterrupt:
        saved = (
            f"{len(rows)} rows are in {out / RESULTS}" if rows else "no attack was finished, so there are no results"
        )
        return _say(arguments, f"interrupted; {saved}; networks trained so far are in {weights.directory()}.", 130)
    except (FloatingPointError, OSError) as error:
        return _say(arguments, _sentence(error), 1)
    except torch.OutOfMemoryError:
        return _say(arguments, "the GPU's memory is too small; try a smaller --batch-size, or auto.", 1)
    _show(rows, out)
    return 0


def _progress(quiet: bool) -> Silent:
    if quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()


def _settings(arguments: argparse.Namespace) -> Settings:
    given = {name: getattr(arguments, name) for name in DEFAULTS}
    for name, default in DEFAULTS.items():
        if isinstance(default, tuple) and given[name] is not default:
            given[name] = tuple(item for text in given[name] for item in text.split(",") if item)
    if given["eps"] is not DEFAULTS["eps"]:
        given["eps"] = tuple(map(_budget, given["eps"]))
    return Settings(**given)


def _images(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text  # Settings says what is wrong with other words


def _budget(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"eps holds {text!r}, expected numbers (in 1/255).") from None


def _show(rows: list[Row], out: Path) -> None:
    """Print the tables, and where the files are."""
    from rich.console import Console

    console = Console(highlight=False)
    for table in report.tables(rows):
        console.print(table)
    for name, text in ((RESULTS, "every row"), (FIGURE, "accuracy over eps"), (RECORD, "settings, machine, times")):
        print(f"{out / name}: {text}")


def _sentence(error: Exception) -> str:
    """Return what an exception says, as a sentence."""
    strerror, filename = getattr(error, "strerror", None), getattr(error, "filename", None)
    text = f"{filename}: {strerror}" if strerror and filename else str(error)
    return text if text.endswith((".", '"')) else f"{text}."


def _say(arguments: argparse.Namespace, sentence: str, code: int) -> int:
    """Print a sentence on stderr; return the exit code that goes with it."""
    print(f"fastsnn {arguments.command}: {sentence}", file=sys.stderr)
    return code
