"""`fastsnn verdict`: whether the gradients of a sweep's networks are masked."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..sweep import LedgerError, folder, verdicts
from ..sweep.verdicts import Court
from ..sweep.weights import CorruptWeightsError
from .flags import add_progress_flags
from .speech import progress_of, say, sentence

BRIEF = "judge whether the gradients of a sweep's networks are masked"
DESCRIPTION = """\
Judge a sweep's trained networks by the checks for masked gradients: one step against many, doubled steps, budgets up to
1, noise, transfer from the other pooling, other surrogates and batch-norm modes, and Square, which needs no gradient.
Each verdict is saved in the sweep's ledger as soon as it is there, and `fastsnn report` shows it; after an interruption
the same command goes on with the networks that are left."""
_FLAGS = {  # fields of Court: metavar and text
    "eps": ("EPS", "the budget that is judged, in 1/255 of the encoded input"),
    "alpha": ("STEP", "step of PGD on the encoded input, absolute (not in 1/255)"),
    "steps": ("N", "iterations of PGD"),
    "images": ("N", "the first N test images"),
    "noises": ("N", "noises for each image of the random search; 10000 are what evaluations ask for"),
    "noise_images": ("N", "images that PGD leaves right and on which noise is tried"),
    "queries": ("N", "of Square for each image; 5000 are AutoAttack's, 0 leaves it out"),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `fastsnn verdict` its flags; their defaults are those of Court."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a sweep")
    group = parser.add_argument_group("checks")
    for name, (metavar, text) in _FLAGS.items():
        default = getattr(Court, name)
        kind = float if name == "eps" else type(default)
        how = {"type": kind, "metavar": metavar, "default": default, "help": f"{text} (default: {default})"}
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, **how)
    group = parser.add_argument_group("running")
    text = "where to compute; auto takes a GPU if there is one (default: auto)"
    group.add_argument("--device", metavar="cpu|cuda|cuda:N|auto", default="auto", help=text)
    add_progress_flags(group)
    parser.set_defaults(run_command=run)


def run(arguments: argparse.Namespace) -> int:
    """Judge, and print a table per network; return the exit code."""
    if missing := folder.missing_packages():
        return say(arguments, missing, 2)
    refused = (LedgerError, CorruptWeightsError, ValueError, TypeError, OSError)
    there = 0
    try:
        court = Court(**{name: getattr(arguments, name) for name in _FLAGS})
        with progress_of(arguments.progress) as progress:
            for network, _, verdict in verdicts.judge(arguments.run, court, progress, device_name=arguments.device):
                there += verdict is None
                if verdict is not None:
                    print(f"{network}\n{verdict}\n", flush=True)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return say(arguments, "interrupted; whole verdicts are saved, and the same command goes on from there.", 130)
    except refused as error:
        return say(arguments, sentence(error), 2)
    except torch.OutOfMemoryError:
        return say(arguments, "the GPU's memory is too small; try a smaller --images.", 1)
    judged = f"judged before: {there}; " if there else ""
    print(f"{judged}all verdicts are in {arguments.run}; fastsnn report {arguments.run} shows them.")
    return 0
