"""`fastsnn report`: a page with the figures and tables of one or several sweeps."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..sweep import LedgerError, folder
from .speech import say, sentence

BRIEF = "write one HTML page with the figures, tables and pictures of sweeps"
DESCRIPTION = f"{BRIEF.capitalize()}."


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `fastsnn report` its flags."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the folder of a sweep")
    text = "where report.html and figures/ go (default: the folder of the first sweep)"
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    parser.add_argument("--no-pictures", action="store_true", help="do not attack a few images anew to show them")
    parser.set_defaults(run_command=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the page and say where it is; return the exit code."""
    missing = folder.missing_packages()
    if missing:
        return say(arguments, missing, 2)
    from ..report import write

    try:
        written = write(arguments.runs, arguments.out or arguments.runs[0], with_pictures=not arguments.no_pictures)
    except (LedgerError, OSError) as error:
        return say(arguments, sentence(error), 2)
    print(f"{written[0]}: open it in a browser; it needs nothing else")
    figures = len({path.with_suffix("") for path in written[1:]})
    print(f"{figures} figures as PNG and PDF are in {written[0].parent / 'figures'}")
    return 0
