"""The `fastsnn` command.

    fastsnn train     train networks with the paper's recipe or a defence, with checkpoints
    fastsnn sweep     train, attack, and show the accuracies; go on where it was interrupted
    fastsnn sparsity  zeros and norms of the gradient at every layer, as CSV and figures
    fastsnn theorems  the paper's theorems in numbers, and what zeros are due to, as CSV and figures
    fastsnn verdict   whether the gradients of a sweep's networks are masked
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
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from ..training.ranks import count, speaks
from . import doctor, export, report, sparsity, sweep, theorems, train, verdict
from .speech import say

_COMMANDS = {"train": train, "sweep": sweep, "sparsity": sparsity, "theorems": theorems, "verdict": verdict}
_COMMANDS |= {"report": report, "export": export, "doctor": doctor}


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
        if (processes := count()) > 1 and arguments.command != "train":
            text = f"torchrun started it {processes} times, and only fastsnn train divides its work; start it without."
            return say(arguments, text, 2) if speaks() else 2
        try:
            return arguments.run_command(arguments)
        except KeyboardInterrupt:
            return say(arguments, "interrupted; there was nothing to save.", 130)
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
    for name, command in _COMMANDS.items():
        how = {"help": command.BRIEF, "description": command.DESCRIPTION}
        command.add_flags(commands.add_parser(name, **how, allow_abbrev=False))
    return parser
