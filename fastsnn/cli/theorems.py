"""`fastsnn theorems`: the founding paper's theorems in numbers, and what zeros are due to, as CSV and figures."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..sweep import folder, sparsity, theorems, weights
from .flags import add, add_network_flags, add_progress_flags, add_retrain_flag, add_training_flags
from .settings import settings_of
from .speech import progress_of, say, sentence

BRIEF = "measure the paper's theorems 4.1 to 4.4 and the causes of zeros, and draw them"
DESCRIPTION = """\
Measure the founding paper's theorems 4.1 to 4.4 on trained networks, and what the zeros in their gradients are due to,
over the first test images. Weights come from the cache of `fastsnn sweep`, or are trained now and go there."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `fastsnn theorems` its flags."""
    add_network_flags(parser)
    group = parser.add_argument_group("theorems")
    add(group, "images", int, "N", "the first N test images, one by one", 60)
    add(group, "eps", str, "EPS", "radius of theorem 4.1's ball, in 1/255 of the encoded input", 6, nargs=1)
    text = "theorem 4.2 also with a network trained for each number of steps, not only with that of --T run for fewer"
    group.add_argument("--train-each-T", action="store_true", dest="train_each", help=text)
    add_retrain_flag(add_training_flags(parser))
    group = parser.add_argument_group("running")
    text = "images per pass of theorem 4.1 (whose noise is drawn pass by pass) and of the causes"
    add(group, "batch-size", int, "IMAGES", text)
    add(group, "device", str, "cpu|cuda|cuda:N|auto", "where to compute; auto takes a GPU if there is one")
    text = "a new folder, or that of such a measurement (default: runs/theorems-<data>-<hash of flags>)"
    group.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    add_progress_flags(group)
    parser.set_defaults(run_command=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, and print a table per network; return the exit code."""
    try:
        if missing := folder.missing_packages():
            raise ImportError(missing)
        settings = settings_of(arguments)
        theorems.check_settings(settings)
        out = arguments.out or theorems.default_out(settings)
        weights.directory()
        sparsity.make_folder(out, theorems.TABLES[0])
    except (ValueError, TypeError, ImportError, OSError) as error:
        return say(arguments, sentence(error), 2)
    from ..report import theorems as drawing

    how, found = {name: getattr(arguments, name) for name in ("retrain", "train_each")}, []
    try:
        with progress_of(arguments.progress) as progress:
            for measured in theorems.measure(settings, progress, **how):
                found.append(measured)
                theorems.write_csv(settings, found, out)
        drawn = drawing.write(found, out / "figures")
    except (FloatingPointError, OSError, ValueError) as error:
        return say(arguments, sentence(error), 1)
    except torch.OutOfMemoryError:
        return say(arguments, "the GPU's memory is too small; try a smaller --batch-size.", 1)
    for one in found:
        print(f"{theorems.summary(settings, one)}\n")
    print(f"{out}: {', '.join(theorems.TABLES)}")
    print(f"{out / 'figures'}: {len(drawn) // 2} figures as PNG and PDF")
    return 0
