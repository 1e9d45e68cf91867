"""`fastsnn train`: networks trained with the paper's recipe or a defence, with checkpoints."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from ..sweep import Settings, plan, training_run
from ..sweep.weights import CorruptWeightsError
from ..training import Ranks
from ..training.ranks import of_torchrun, speaks
from .flags import add, add_network_flags, add_progress_flags, add_training_flags
from .settings import settings_of
from .speech import progress_of, say, sentence

BRIEF = "train networks with the paper's recipe or a defence; go on where it was interrupted"
DESCRIPTION = """\
Train networks with the paper's recipe: Adam, learning rate 0.001, weight decay 0.001, batches of 16, 100 epochs,
horizontal flips, seed 3407; each of these is a flag, and a defence can be named. After every epoch the weights, a
checkpoint and a line of log.csv are saved: whenever it stops, the same command goes on, and on a CPU the result has the
bits of a run that was never stopped. `fastsnn sweep --weights FILE` attacks what was trained."""


_PAPER = {"width": 64, "pools": "max", "epochs": 100, "train_batch_size": 16, "lr": 1e-3, "schedule": "constant"}
_PAPER |= {"flips": True}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `fastsnn train` its flags."""
    add_network_flags(parser, _PAPER)
    add_training_flags(parser, _PAPER, "precision")
    group = parser.add_argument_group("scores, after every epoch")
    text = "also the accuracy under PGD, by which the best epoch is then chosen"
    group.add_argument("--robust", action="store_true", help=text)
    add(group, "eps", str, "EPS", "PGD's budget in 1/255 of the encoded input, the paper's", 6, nargs=1)
    add(group, "steps", str, "N", "its iterations", nargs=1)
    add(group, "alpha", float, "STEP", "its step on the encoded input, absolute (not in 1/255), as in the paper")
    add(group, "images", int, "N", "the first N test images only")
    group.add_argument("--tensorboard", action="store_true", help="also scalars; needs the extra tensorboard")
    group = parser.add_argument_group("running")
    add(group, "batch-size", int, "IMAGES", "images per batch when scoring")
    add(group, "device", str, "cpu|cuda|cuda:N|auto", "where to compute; auto takes a GPU if there is one")
    text = "where each network has a folder, new or of a training to go on with (default: runs/train)"
    group.add_argument("--out", type=Path, metavar="FOLDER", default=Path("runs", "train"), help=text)
    add_progress_flags(group)
    parser.set_defaults(run_command=run)


def run(arguments: argparse.Namespace) -> int:
    """Train every network, and say where its files are; return the exit code."""
    try:
        settings = settings_of(arguments)
        with of_torchrun(settings.device) as (ranks, device):
            return _train(arguments, replace(settings, device=device), ranks)
    except (ValueError, TypeError, OSError, CorruptWeightsError) as error:
        return say(arguments, sentence(error), 2) if speaks() else 2


def _train(arguments: argparse.Namespace, settings: Settings, ranks: Ranks) -> int:
    how = {"tensorboard": arguments.tensorboard, "ranks": ranks}
    refused = None
    if ranks.rank == 0:  # the others would download the same files, and say the same
        try:
            training_run.prepare(settings, arguments.out, **how)
        except (ValueError, TypeError, ImportError, OSError, CorruptWeightsError) as error:
            refused = say(arguments, sentence(error), 2)
    if ranks.first_says(refused is not None):
        return 2
    how["robust"] = arguments.robust
    try:
        with progress_of(arguments.progress if ranks.rank == 0 else "none") as progress:
            for network in plan.networks(settings):
                for _ in training_run.train(settings, network, arguments.out, progress, **how):
                    pass
    except KeyboardInterrupt:
        text = f"interrupted; whole epochs are saved in {arguments.out}, and the same command goes on from there."
        return say(arguments, text, 130) if ranks.rank == 0 else 130
    except (FloatingPointError, ValueError, OSError, CorruptWeightsError) as error:
        return say(arguments, sentence(error), 1)
    except torch.OutOfMemoryError:
        return say(arguments, "the GPU's memory is too small; try a smaller --train-batch-size.", 1)
    except RuntimeError as error:
        if ranks.size == 1:
            raise
        text = f"process {ranks.rank} of {ranks.size} stopped ({str(error).splitlines()[0]}); whole epochs are saved in"
        return say(arguments, f"{text} {arguments.out}, and the same command goes on from there.", 1)
    for network in plan.networks(settings) if ranks.rank == 0 else ():
        print(f"{training_run.folder_of(arguments.out, network)}: {training_run.LATEST}, {training_run.BEST}, log.csv")
    return 0
