"""`fastsnn sweep`: train, attack, and show the accuracies; go on where it was interrupted."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..sweep import EngineError, Ledger, LedgerError, default_out, folder, plan, prepare, report, sweep, weights
from ..sweep.by_name import ATTACKS
from ..sweep.engines import ENGINES
from ..sweep.folder import FIGURE, RESULTS
from ..sweep.ledger import FILE
from .dry_run import dry_run
from .flags import add, add_network_flags, add_progress_flags, add_retrain_flag, add_training_flags
from .settings import images_or_auto, settings_of
from .speech import progress_of, say, sentence

BRIEF = "train networks, attack them over a range of budgets, show the accuracies"
DESCRIPTION = """\
Train networks, attack every test image with every attack and budget, and show the accuracies. By default: SEW-ResNet18
with max and with average pooling on handwritten digits; about a minute on two cores without a GPU. Trained weights are
cached in $FASTSNN_CACHE (by default ~/.cache/fastsnn), so that the next sweep over the same networks skips training.
Every result is saved as soon as it is there: after an interruption the same command goes on from where it was. A plan
is a TOML file whose keys are these flags, e.g. eps = [2, 4] and pool = "avg"; flags given beside it take precedence."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `fastsnn sweep` its flags; their defaults are those of Settings."""
    text = "a TOML file with any of the flags below; without one, the flags alone say what to do"
    parser.add_argument("plan", nargs="?", type=Path, metavar="plan.toml", help=text)
    add_network_flags(parser)
    text = "attack the network of such a file of `fastsnn train`, which also says how it was trained, and train none"
    add(parser, "weights", str, "FILE", text, shown="none")

    group = parser.add_argument_group("attacks")
    add(group, "attacks", str, "NAME", f"attacks to make: {', '.join(ATTACKS)}")
    add(group, "eps", str, "EPS", "budgets in 1/255 of the encoded input, whose spikes are 0 or 1; 0 to 255")
    add(group, "steps", str, "N", "iterations of all attacks but FGSM")
    add(group, "restarts", str, "N", "random starts of PGD and APGD, of which the worst counts for each image")
    text = "step of PGD and MIM on the encoded input, absolute (not in 1/255), as in the paper"
    add(group, "alpha", float, "STEP", text)
    add(group, "images", int, "N", "attack the first N test images only")
    text = "batch norm while an attack is made: running statistics, the batch's, or the paper's train mode"
    add(group, "bn", str, "frozen|batch|drift", f"{text}, in which every pass moves the running ones")
    text = "what the attacker takes for a spike's gradient: atan, sigmoid, triangle or rectangle, and its alpha"
    add(group, "surrogate", str, "SHAPE:ALPHA", text)
    text = "of attacks and scores: SpikingJelly's order of operations bit for bit,"
    add(group, "precision", str, "reference|fp32|fast", f"{text} float32 with layers fused, or bfloat16 products")

    add_retrain_flag(add_training_flags(parser))

    group = parser.add_argument_group("running")
    text = "images per batch when attacking and scoring; auto: as many as are fast on a CPU or fit a GPU's memory,"
    add(group, "batch-size", images_or_auto, "IMAGES|auto", f"{text} with --bn frozen only")
    add(group, "device", str, "cpu|cuda|cuda:N|auto", "where to compute; auto takes a GPU if there is one")
    text = "local (this process; with --device auto or cuda a process for each of several GPUs) or a Ray cluster"
    group.add_argument("--engine", choices=ENGINES, default="local", help=f"{text} (default: local)")
    text = "of the Ray cluster; by default what RAY_ADDRESS names, else one is started on this machine"
    group.add_argument("--address", metavar="HOST:PORT", help=text)
    text = (
        "a new folder, or that of a sweep to go on with (default: runs/<plan's name>, or runs/<data>-<hash of flags>)"
    )
    group.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    group.add_argument("--dry-run", action="store_true", help="only show the cells, and how long they may take")
    add_progress_flags(group)
    parser.set_defaults(run_command=run)


def run(arguments: argparse.Namespace) -> int:
    """Go over the cells, and print the tables; return the exit code."""
    try:
        settings = settings_of(arguments)
        out = arguments.out or default_out(settings, arguments.plan)
        if arguments.dry_run:
            folder.check(settings, out)
            return dry_run(settings, out)
        prepare(settings, out)
    except BrokenPipeError:
        raise
    except (ValueError, TypeError, ImportError, LedgerError, OSError) as error:
        return say(arguments, sentence(error), 2)
    try:
        with progress_of(arguments.progress) as progress:
            progress.say(f"networks: {len(plan.networks(settings))}; results go to {out}")
            how = {"engine_name": arguments.engine, "address": arguments.address, "retrain": arguments.retrain}
            for _ in sweep(settings, out, progress, **how):
                pass
    except KeyboardInterrupt:
        return say(arguments, f"interrupted; {_saved(out)}", 130)
    except (FloatingPointError, LedgerError, EngineError, ImportError) as error:
        return say(arguments, sentence(error), 1)
    except OSError as error:
        return say(arguments, f"{sentence(error)[:-1]}; what was finished is saved.", 1)
    except torch.OutOfMemoryError:
        return say(arguments, "the GPU's memory is too small; try a smaller --batch-size, or auto.", 1)
    _show(out)
    return 0


def _saved(out: Path) -> str:
    """Return what an interrupted sweep leaves, and how to go on."""
    try:
        with Ledger.read(out) as ledger:
            count = len(ledger.results())
    except LedgerError:  # it was not begun yet: one that is damaged is refused before any work
        count = 0
    cells = f"{count} cells are in {out / FILE}" if count else "no cell was finished"
    return f"{cells}, networks trained so far in {weights.directory()}; the same command goes on from there."


def _show(out: Path) -> None:
    """Print the tables, and where the files are."""
    from rich.console import Console

    with Ledger.read(out) as ledger:
        rows = ledger.results_of_plan()
    console = Console(highlight=False)
    for table in report.tables(rows):
        console.print(table)
    about = ((RESULTS, "every cell"), (FIGURE, "accuracy over eps"), (FILE, "every image, settings, machine, times"))
    for name, text in about:
        print(f"{out / name}: {text}")
