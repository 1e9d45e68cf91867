"""The `fastsnn` command.

    fastsnn train     train networks with the paper's recipe or a defence, with checkpoints
    fastsnn sweep     train, attack, and show the accuracies; go on where it was interrupted
    fastsnn sparsity  zeros and norms of the gradient at every layer, as CSV and figures
    fastsnn report    a page with the figures and tables of one or several sweeps
    fastsnn export    a sweep's results as CSV, Parquet or JSON
    fastsnn doctor    what is installed, what runs, and whether it computes rightly

Exit codes: 0 done, 1 a check or a computation failed, 2 refused before any work, 130 interrupted.
"""

from __future__ import annotations

import os

# Before torch is loaded: OpenMP threads that spin while they wait made sweeps 2 to 3 times slower on shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import torch

from . import __version__, doctor
from .data import DATASETS
from .models import BUILDERS
from .nn import ENCODERS
from .sweep import (
    EngineError,
    Ledger,
    LedgerError,
    Settings,
    default_out,
    export,
    folder,
    plan,
    plan_file,
    prepare,
    report,
    sparsity,
    sweep,
    training_run,
    weights,
)
from .sweep.by_name import ATTACKS
from .sweep.engines import ENGINES
from .sweep.estimate import estimate
from .sweep.folder import FIGURE, RESULTS
from .sweep.ledger import FILE
from .sweep.plan import DEFAULTS
from .sweep.progress import Bars, JsonLines, Lines, Silent
from .sweep.weights import CorruptWeightsError
from .training import DEFENCES, OPTIMIZERS

_SWEEP = """\
Train networks, attack every test image with every attack and budget, and show the accuracies. By default: SEW-ResNet18
with max and with average pooling on handwritten digits; a few minutes on two cores without a GPU. Trained weights are
cached in $FASTSNN_CACHE (by default ~/.cache/fastsnn), so that the next sweep over the same networks skips training.
Every result is saved as soon as it is there: after an interruption the same command goes on from where it was. A plan
is a TOML file whose keys are these flags, e.g. eps = [2, 4] and pool = "avg"; flags given beside it take precedence."""

_TRAIN = """\
Train networks with the paper's recipe: Adam, learning rate 0.001, weight decay 0.001, batches of 16, 100 epochs,
horizontal flips, seed 3407; each of these is a flag, and a defence can be named. After every epoch the weights, a
checkpoint and a line of log.csv are saved: whenever it stops, the same command goes on, and on a CPU the result has the
bits of a run that was never stopped. `fastsnn sweep --weights FILE` attacks what was trained."""
_PAPER = {"width": 64, "pools": "max", "epochs": 100, "train_batch_size": 16, "lr": 1e-3, "schedule": "constant"}
_PAPER |= {"flips": True}

_SPARSITY = """\
Measure the loss gradient at the input and output of every layer of trained networks: the share of exact zeros and the
norms, averaged over the test images and the steps of an attack, as in the paper's figures 3 and 5. Weights come from
the cache of `fastsnn sweep`, or are trained now and go there."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name; None takes sys.argv) and return its exit code."""
    try:
        return _run(argv)
    except BrokenPipeError:  # whoever read, such as head, has left; what is printed at the exit must not fail again
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 1


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = _parser().parse_args(argv)
        try:
            return arguments.run_command(arguments)
        except KeyboardInterrupt:
            return _say(arguments, "interrupted; there was nothing to save.", 130)
    finally:
        sys.stdout.flush()


class _Parser(argparse.ArgumentParser):
    """Refuses with one sentence instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.rstrip('.')}. See {self.prog} --help.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastsnn", description="Robustness studies of spiking neural networks.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fastsnn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    brief = "train networks with the paper's recipe or a defence; go on where it was interrupted"
    _add_train_flags(commands.add_parser("train", help=brief, description=_TRAIN, allow_abbrev=False))
    brief = "train networks, attack them over a range of budgets, show the accuracies"
    _add_flags(commands.add_parser("sweep", help=brief, description=_SWEEP, allow_abbrev=False))
    brief = "measure zeros and norms of the gradient at every layer, and draw them"
    _add_sparsity_flags(commands.add_parser("sparsity", help=brief, description=_SPARSITY, allow_abbrev=False))
    brief = "write one HTML page with the figures, tables and pictures of sweeps"
    _add_report_flags(
        commands.add_parser("report", help=brief, description=f"{brief.capitalize()}.", allow_abbrev=False)
    )
    brief = "write a sweep's results as CSV, Parquet or JSON"
    _add_export_flags(
        commands.add_parser("export", help=brief, description=f"{brief.capitalize()}.", allow_abbrev=False)
    )
    brief = "show versions, devices and backends, and check every kernel against the reference"
    command = commands.add_parser("doctor", help=brief, description=f"{brief.capitalize()}.", allow_abbrev=False)
    command.set_defaults(run_command=lambda _: doctor.main())
    return parser


def _add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `fastsnn sweep` its flags; their defaults are those of Settings."""
    text = "a TOML file with any of the flags below; without one, the flags alone say what to do"
    parser.add_argument("plan", nargs="?", type=Path, metavar="plan.toml", help=text)
    _add_network_flags(parser)
    text = "attack the network of such a file of `fastsnn train`, which also says how it was trained, and train none"
    _add(parser, "weights", str, "FILE", text, shown="none")

    group = parser.add_argument_group("attacks")
    _add(group, "attacks", str, "NAME", f"attacks to make: {', '.join(ATTACKS)}")
    _add(group, "eps", str, "EPS", "budgets in 1/255 of the encoded input, whose spikes are 0 or 1; 0 to 255")
    _add(group, "steps", str, "N", "iterations of all attacks but FGSM")
    _add(group, "restarts", str, "N", "random starts of PGD and APGD, of which the worst counts for each image")
    text = "step of PGD and MIM on the encoded input, absolute (not in 1/255), as in the paper"
    _add(group, "alpha", float, "STEP", text)
    _add(group, "images", int, "N", "attack the first N test images only")
    text = "batch norm while an attack is made: running statistics, the batch's, or the paper's train mode"
    _add(group, "bn", str, "frozen|batch|drift", f"{text}, in which every pass moves the running ones")
    text = "what the attacker takes for a spike's gradient: atan, sigmoid, triangle or rectangle, and its alpha"
    _add(group, "surrogate", str, "SHAPE:ALPHA", text)
    text = "of attacks and scores (training is always fp32): SpikingJelly's order of operations bit for bit,"
    _add(group, "precision", str, "reference|fp32|fast", f"{text} float32 with layers fused, or bfloat16 products")

    _add_retrain_flag(_add_training_flags(parser))

    group = parser.add_argument_group("running")
    text = "images per batch when attacking and scoring; auto: as many as are fast on a CPU or fit a GPU's memory,"
    _add(group, "batch-size", _images, "IMAGES|auto", f"{text} with --bn frozen only")
    _add(group, "device", str, "cpu|cuda|cuda:N|auto", "where to compute; auto takes a GPU if there is one")
    text = "local (this process; with --device auto or cuda a process for each of several GPUs) or a Ray cluster"
    group.add_argument("--engine", choices=ENGINES, default="local", help=f"{text} (default: local)")
    text = "of the Ray cluster; by default what RAY_ADDRESS names, else one is started on this machine"
    group.add_argument("--address", metavar="HOST:PORT", help=text)
    text = (
        "a new folder, or that of a sweep to go on with (default: runs/<plan's name>, or runs/<data>-<hash of flags>)"
    )
    group.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    group.add_argument("--dry-run", action="store_true", help="only show the cells, and how long they may take")
    _add_progress_flags(group)
    parser.set_defaults(run_command=_sweep)


def _add_train_flags(parser: argparse.ArgumentParser) -> None:
    """Give `fastsnn train` its flags."""
    _add_network_flags(parser, _PAPER)
    _add_training_flags(parser, _PAPER)
    group = parser.add_argument_group("scores, after every epoch")
    text = "also the accuracy under PGD, by which the best epoch is then chosen"
    group.add_argument("--robust", action="store_true", help=text)
    _add(group, "eps", str, "EPS", "PGD's budget in 1/255 of the encoded input, the paper's", 6, nargs=1)
    _add(group, "steps", str, "N", "its iterations", nargs=1)
    _add(group, "alpha", float, "STEP", "its step on the encoded input, absolute (not in 1/255), as in the paper")
    _add(group, "images", int, "N", "the first N test images only")
    group.add_argument("--tensorboard", action="store_true", help="also scalars; needs the extra tensorboard")
    group = parser.add_argument_group("running")
    _add(group, "batch-size", int, "IMAGES", "images per batch when scoring")
    _add(group, "device", str, "cpu|cuda|cuda:N|auto", "where to compute; auto takes a GPU if there is one")
    text = "where each network has a folder, new or of a training to go on with (default: runs/train)"
    group.add_argument("--out", type=Path, metavar="FOLDER", default=Path("runs", "train"), help=text)
    _add_progress_flags(group)
    parser.set_defaults(run_command=_train)


def _add_sparsity_flags(parser: argparse.ArgumentParser) -> None:
    """Give `fastsnn sparsity` its flags."""
    _add_network_flags(parser)
    group = parser.add_argument_group("gradients")
    text = "whose gradients: those of all steps of an attack, or none: at the test images themselves"
    group.add_argument("--attack", choices=sparsity.ATTACKS, default="pgd", help=f"{text} (default: pgd)")
    _add(group, "eps", str, "EPS", "budget in 1/255 of the encoded input, the paper's", 6, nargs=1)
    _add(group, "steps", str, "N", "iterations of PGD", nargs=1)
    _add(group, "alpha", float, "STEP", "step of PGD on the encoded input, absolute (not in 1/255), as in the paper")
    _add(group, "images", int, "N", "the first N test images only")
    text = "batch norm meanwhile: running statistics, the batch's, or the paper's train mode"
    _add(group, "bn", str, "frozen|batch|drift", text, nargs=1)
    group.add_argument("--per-step", action="store_true", help="also a line of the CSV file for every time step")
    _add_retrain_flag(_add_training_flags(parser))
    group = parser.add_argument_group("running")
    _add(group, "batch-size", int, "IMAGES", "images per pass; with --bn frozen no share of zeros depends on it")
    _add(group, "device", str, "cpu|cuda|cuda:N|auto", "where to compute; auto takes a GPU if there is one")
    text = "a new folder, or that of such a measurement (default: runs/sparsity-<data>-<hash of flags>)"
    group.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    _add_progress_flags(group)
    parser.set_defaults(run_command=_sparsity)


def _add(
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


def _add_network_flags(parser: argparse.ArgumentParser, own: Mapping[str, object] = MappingProxyType({})) -> None:
    """Add what networks see and are; `own` defaults go before those of Settings."""
    group = parser.add_argument_group("networks and data (lists with spaces or commas)")
    _add(group, "data", str, "NAME", f"data sets: {', '.join(DATASETS)}")
    text = "that has the files of the data sets, as they are published; without one, fastsnn's cache, to which the"
    _add(group, "root", str, "FOLDER", f"{text} CIFARs are downloaded", shown="the cache")
    _add(group, "frame-size", int, "PIXELS", "height and width of event frames: 128 as recorded, 64 or 48")
    text = "how images become spikes; a network is trained for each, and recordings of events are not coded"
    _add(group, "coding", str, "NAME", f"{text}: {', '.join(ENCODERS)}")
    _add(group, "models", str, "NAME", f"networks: {', '.join(BUILDERS)}")
    text = "planes of the first stage, doubled in each later one; 64 as published"
    _add(group, "width", int, "PLANES", text, own.get("width"))
    text = "pooling in the stem, or between a VGG's layers; a network is trained for each"
    _add(group, "pool", str, "max|avg", text, own.get("pools"))
    _add(group, "T", int, "STEPS", "time steps of every coding, and frames of a recording")
    _add(group, "K", int, "PHASES", "phases of the phase code, which turns the K bits of a pixel into spikes; 1 to 16")


def _add_training_flags(
    parser: argparse.ArgumentParser, own: Mapping[str, object] = MappingProxyType({})
) -> argparse._ArgumentGroup:
    """Add how networks are trained, and return these flags; `own` defaults go before those of Settings."""
    group = parser.add_argument_group("training")
    _add(group, "epochs", int, "N", "passes over the training images", own.get("epochs"))
    _add(group, "train-batch-size", int, "IMAGES", "images per training step", own.get("train_batch_size"))
    _add(group, "lr", float, "RATE", "the learning rate, at the start", own.get("lr"))
    text = "of the learning rate: constant as in the paper, or falling to 0"
    _add(group, "schedule", str, "constant|cosine", text, own.get("schedule"))
    _add(group, "weight-decay", float, "L2", "L2 penalty of the optimizer")
    _add(group, "optimizer", str, "|".join(OPTIMIZERS), "adam as in the paper, or sgd with momentum 0.9")
    text = "turn training images left to right by chance, as in the paper"
    flips = own.get("flips", DEFAULTS["flips"])
    how = {"action": argparse.BooleanOptionalAction, "default": own.get("flips")}
    group.add_argument("--flips", **how, help=f"{text} (default: {'flips' if flips else 'no flips'})")
    text = f"how networks are made robust: {', '.join(DEFENCES)}; settings follow as in snn_rat:eps=4"
    _add(group, "defence", str, "NAME", f"{text}; a network is trained for each")
    text = "of initial weights, order of training images, and PGD's random starts; a network is trained for each"
    _add(group, "seed", str, "N", text)
    return group


def _add_retrain_flag(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--retrain", action="store_true", help="train even where the cache has the weights")


def _add_progress_flags(group: argparse._ArgumentGroup) -> None:
    text = "auto (bars on a terminal, else lines), bars, lines, json (an object per event, on stderr) or none"
    group.add_argument("--progress", choices=("auto", *_PROGRESS), default="auto", help=f"{text} (default: auto)")
    group.add_argument(
        "--quiet", action="store_const", const="none", dest="progress", help="the same as --progress none"
    )


def _add_export_flags(parser: argparse.ArgumentParser) -> None:
    """Give `fastsnn export` its flags."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a sweep")
    text = "csv (a line per cell), parquet (the same; needs the extra parquet) or json (an object per network)"
    parser.add_argument("--format", choices=export.FORMATS, default="csv", help=f"{text} (default: csv)")
    text = "also every image of every cell (csv and parquet)"
    parser.add_argument("--samples", action="store_true", help=text)
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to (default: RUN/export.<format>)")
    parser.set_defaults(run_command=_export)


def _add_report_flags(parser: argparse.ArgumentParser) -> None:
    """Give `fastsnn report` its flags."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the folder of a sweep")
    text = "where report.html and figures/ go (default: the folder of the first sweep)"
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    parser.add_argument("--no-pictures", action="store_true", help="do not attack a few images anew to show them")
    parser.set_defaults(run_command=_report)


def _train(arguments: argparse.Namespace) -> int:
    try:
        settings = _settings(arguments)
        training_run.prepare(settings, arguments.out, tensorboard=arguments.tensorboard)
    except (ValueError, TypeError, ImportError, OSError, CorruptWeightsError) as error:
        return _say(arguments, _sentence(error), 2)
    how = {"robust": arguments.robust, "tensorboard": arguments.tensorboard}
    try:
        with _progress(arguments.progress) as progress:
            for network in plan.networks(settings):
                for _ in training_run.train(settings, network, arguments.out, progress, **how):
                    pass
    except KeyboardInterrupt:
        text = f"interrupted; whole epochs are saved in {arguments.out}, and the same command goes on from there."
        return _say(arguments, text, 130)
    except (FloatingPointError, ValueError, OSError, CorruptWeightsError) as error:
        return _say(arguments, _sentence(error), 1)
    except torch.OutOfMemoryError:
        return _say(arguments, "the GPU's memory is too small; try a smaller --train-batch-size.", 1)
    for network in plan.networks(settings):
        print(f"{training_run.folder_of(arguments.out, network)}: {training_run.LATEST}, {training_run.BEST}, log.csv")
    return 0


def _sweep(arguments: argparse.Namespace) -> int:
    try:
        settings = _settings(arguments)
        out = arguments.out or default_out(settings, arguments.plan)
        if arguments.dry_run:
            folder.check(settings, out)
            return _dry_run(settings, out)
        prepare(settings, out)
    except BrokenPipeError:
        raise
    except (ValueError, TypeError, ImportError, LedgerError, OSError) as error:
        return _say(arguments, _sentence(error), 2)
    try:
        with _progress(arguments.progress) as progress:
            progress.say(f"networks: {len(plan.networks(settings))}; results go to {out}")
            how = {"engine_name": arguments.engine, "address": arguments.address, "retrain": arguments.retrain}
            for _ in sweep(settings, out, progress, **how):
                pass
    except KeyboardInterrupt:
        return _say(arguments, f"interrupted; {_saved(out)}", 130)
    except (FloatingPointError, LedgerError, EngineError, ImportError) as error:
        return _say(arguments, _sentence(error), 1)
    except OSError as error:
        return _say(arguments, f"{_sentence(error)[:-1]}; what was finished is saved.", 1)
    except torch.OutOfMemoryError:
        return _say(arguments, "the GPU's memory is too small; try a smaller --batch-size, or auto.", 1)
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


def _dry_run(settings: Settings, out: Path) -> int:
    """Print the cells, how many there are, and how long they may take."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("network", "attack", "bn", "surrogate", "steps", "restarts", "eps (1/255)"):
        table.add_column(name, overflow="fold")
    found = plan.networks(settings)
    for network in found:
        for cells in plan.passes(settings, network):
            one = cells[0]
            how = (one.attack, one.bn, one.surrogate, str(one.steps), str(one.restarts))
            table.add_row(str(network), *how, " ".join(f"{cell.eps:g}" for cell in cells))
    Console(highlight=False).print(table)
    print("measuring ...", file=sys.stderr, flush=True)
    estimates = estimate(settings, out)
    cells, saved = (sum(getattr(one, name) for one in estimates) for name in ("cells", "saved"))
    training, attacks = (sum(getattr(one, name) for one in estimates) for name in ("training", "attacks"))
    count = sum(one.training > 0 for one in estimates)
    print(f"{cells} cells of {len(found)} networks", end=f", {saved} of which are saved already; " if saved else "; ")
    if saved == cells:
        print("nothing is left to do.")
        return 0
    print(f"on this machine about {_duration(attacks)} to attack", end="")
    print(f", and {_duration(training)} to train {count} of them before" if count else ", trained already", end="")
    print(f". Nothing was begun; without --dry-run results go to {out}.")
    return 0


def _duration(seconds: float) -> str:
    for name, unit in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"


def _sparsity(arguments: argparse.Namespace) -> int:
    try:
        if missing := folder.missing_packages():
            raise ImportError(missing)
        settings = _settings(arguments)
        sparsity.check_single(settings)
        out = arguments.out or sparsity.default_out(settings, arguments.attack)
        weights.directory()
        sparsity.make_folder(out)
    except (ValueError, TypeError, ImportError, OSError) as error:
        return _say(arguments, _sentence(error), 2)
    from .report import sparsity as drawing

    how, found = {"per_step": arguments.per_step, "retrain": arguments.retrain}, []
    try:
        with _progress(arguments.progress) as progress:
            for measured in sparsity.measure(settings, arguments.attack, progress, **how):
                found.append(measured)
                sparsity.write_csv(settings, arguments.attack, found, out / sparsity.TABLE)
        drawn = drawing.write(found, out / "figures")
    except (FloatingPointError, OSError, ValueError) as error:
        return _say(arguments, _sentence(error), 1)
    except torch.OutOfMemoryError:
        return _say(arguments, "the GPU's memory is too small; try a smaller --batch-size.", 1)
    for network, rows in found:
        print(f"{network}\n{rows.by_kind()}\n")
    print(f"{out / sparsity.TABLE}: every layer")
    print(f"{out / 'figures'}: {len(drawn) // 2} figures as PNG and PDF")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    missing = folder.missing_packages()
    if missing:
        return _say(arguments, missing, 2)
    from .report import write

    try:
        written = write(arguments.runs, arguments.out or arguments.runs[0], with_pictures=not arguments.no_pictures)
    except (LedgerError, OSError) as error:
        return _say(arguments, _sentence(error), 2)
    print(f"{written[0]}: open it in a browser; it needs nothing else")
    figures = len({path.with_suffix("") for path in written[1:]})
    print(f"{figures} figures as PNG and PDF are in {written[0].parent / 'figures'}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    try:
        file = arguments.out or arguments.run / f"export.{arguments.format}"
        with Ledger.read(arguments.run) as ledger:
            written = export.write(ledger, file, arguments.format, samples=arguments.samples)
    except (LedgerError, ImportError, ValueError, OSError) as error:
        return _say(arguments, _sentence(error), 2)
    for path in written:
        print(path)
    return 0


_PROGRESS = {"bars": Bars, "lines": Lines, "json": JsonLines, "none": Silent}


def _progress(name: str) -> Silent:
    return _PROGRESS["bars" if sys.stderr.isatty() else "lines"]() if name == "auto" else _PROGRESS[name]()


def _settings(arguments: argparse.Namespace) -> Settings:
    """Return the settings of given weights, the plan's, and those on the command line; the later take precedence."""
    settings = {} if getattr(arguments, "plan", None) is None else plan_file.read(arguments.plan)
    if file := getattr(arguments, "weights", None) or settings.get("weights"):
        settings = weights.settings_of(Path(file)) | settings
    for name, default in DEFAULTS.items():
        given = getattr(arguments, name, None)
        if given is None:
            continue
        if isinstance(default, tuple):
            given = tuple(item for text in given for item in text.split(",") if item)
            kind = {"eps": float, "steps": int, "restarts": int, "seeds": int}.get(name, str)
            given = tuple(_number(plan_file.flag(name), text, kind) for text in given)
        settings[name] = given
    try:
        return Settings(**settings)
    except (ValueError, TypeError) as error:  # by the names that were typed
        name, space, rest = str(error).partition(" ")
        raise type(error)(f"{plan_file.flag(name) if name in DEFAULTS else name}{space}{rest}") from None


def _images(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text  # Settings says what is wrong with other words


def _number(flag: str, text: str, kind: type) -> str | int | float:
    try:
        return kind(text)
    except ValueError:
        unit = " (in 1/255)" if flag == "eps" else ""
        raise ValueError(f"{flag} holds {text!r}, expected {'whole ' if kind is int else ''}numbers{unit}.") from None


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


def _sentence(error: Exception) -> str:
    """Return what an exception says, as a sentence."""
    strerror, filename = getattr(error, "strerror", None), getattr(error, "filename", None)
    text = f"{filename}: {strerror}" if strerror and filename else str(error)
    return text if text.endswith((".", "?", '"')) else f"{text}."


def _say(arguments: argparse.Namespace, sentence: str, code: int) -> int:
    """Print a sentence on stderr; return the exit code that goes with it."""
    print(f"fastsnn {arguments.command}: {sentence}", file=sys.stderr)
    return code
