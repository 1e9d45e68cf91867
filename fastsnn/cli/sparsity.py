"""`fastsnn sparsity`: zeros and norms of the gradient at every layer, as CSV and figures."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..sweep import folder, sparsity, weights
from .flags import add, add_network_flags, add_progress_flags, add_retrain_flag, add_training_flags
from .settings import settings_of
from .speech import progress_of, say, sentence

BRIEF = "measure zeros and norms of the gradient at every layer, and draw them"
DESCRIPTION = """\
Measure the loss gradient at the input and output of every layer of trained networks: the share of exact zeros and the
norms, averaged over the test images and the steps of an attack, as in the paper's figures 3 and 5. Weights come from
the cache of `fastsnn sweep`, or are trained now and go there."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `fastsnn sparsity` its flags."""
    add_network_flags(parser)
    group = parser.add_argument_group("gradients")
    text = "whose gradients: those of all steps of an attack, or none: at the test images themselves"
    group.add_argument("--attack", choices=sparsity.ATTACKS, default="pgd", help=f"{text} (default: pgd)")
    add(group, "eps", str, "EPS", "budget in 1/255 of the encoded input, the paper's", 6, nargs=1)
    add(group, "steps", str, "N", "iterations of PGD", nargs=1)
    add(group, "alpha", float, "STEP", "step of PGD on the encoded input, absolute (not in 1/255), as in the paper")
    add(group, "images", int, "N", "the first N test images only")
    text = "batch norm meanwhile: running statistics, the batch's, or the paper's train mode"
    add(group, "bn", str, "frozen|batch|drift", text, nargs=1)
    group.add_argument("--per-step", action="store_true", help="also a line of the CSV file for every time step")
    text = "count inside the engine's fused layers, whose sums attacks use: several times faster"
    group.add_argument("--fused", action="store_true", help=text)
    add_retrain_flag(add_training_flags(parser))
    group = parser.add_argument_group("running")
    add(group, "batch-size", int, "IMAGES", "images per pass; with --bn frozen no share of zeros depends on it")
    add(group, "device", str, "cpu|cuda|cuda:N|auto", "where to compute; auto takes a GPU if there is one")
    text = "a new folder, or that of such a measurement (default: runs/sparsity-<data>-<hash of flags>)"
    group.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    add_progress_flags(group)
    parser.set_defaults(run_command=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, and print a table per network; return the exit code."""
    try:
        if missing := folder.missing_packages():
            raise ImportError(missing)
        settings = settings_of(arguments)
        sparsity.check_single(settings)
        if arguments.attack != "none" and 0 in settings.steps:
            raise ValueError(f"steps is 0 with attack={arguments.attack!r}: there is no gradient; expected at least 1.")
        out = arguments.out or sparsity.default_out(settings, arguments.attack, fused=arguments.fused)
        weights.directory()
        sparsity.make_folder(out)
    except (ValueError, TypeError, ImportError, OSError) as error:
        return say(arguments, sentence(error), 2)
    from ..report import sparsity as drawing

    how, found = {name: getattr(arguments, name) for name in ("per_step", "retrain", "fused")}, []
    try:
        with progress_of(arguments.progress) as progress:
            for measured in sparsity.measure(settings, arguments.attack, progress, **how):
                found.append(measured)
                sparsity.write_csv(settings, arguments.attack, found, out / sparsity.TABLE, fused=arguments.fused)
        drawn = drawing.write(found, out / "figures")
    except (FloatingPointError, OSError, ValueError) as error:
        return say(arguments, sentence(error), 1)
    except torch.OutOfMemoryError:
        return say(arguments, "the GPU's memory is too small; try a smaller --batch-size.", 1)
    for network, rows in found:
        print(f"{network}\n{rows.by_kind()}\n")
    print(f"{out / sparsity.TABLE}: every layer")
    print(f"{out / 'figures'}: {len(drawn) // 2} figures as PNG and PDF")
    return 0
