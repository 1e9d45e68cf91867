"""`fastsnn export`: a sweep's results as CSV, Parquet or JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..sweep import Ledger, LedgerError, export
from .speech import say, sentence

BRIEF = "write a sweep's results as CSV, Parquet or JSON"
DESCRIPTION = f"{BRIEF.capitalize()}."


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `fastsnn export` its flags."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a sweep")
    text = "csv (a line per cell), parquet (the same; needs the extra parquet) or json (an object per network)"
    parser.add_argument("--format", choices=export.FORMATS, default="csv", help=f"{text} (default: csv)")
    text = "also every image of every cell (csv and parquet)"
    parser.add_argument("--samples", action="store_true", help=text)
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to (default: RUN/export.<format>)")
    parser.set_defaults(run_command=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the files and name them; return the exit code."""
    try:
        file = arguments.out or arguments.run / f"export.{arguments.format}"
        with Ledger.read(arguments.run) as ledger:
            written = export.write(ledger, file, arguments.format, samples=arguments.samples)
    except (LedgerError, ImportError, ValueError, OSError) as error:
        return say(arguments, sentence(error), 2)
    for path in written:
        print(path)
    return 0
