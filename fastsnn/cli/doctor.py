"""`fastsnn doctor`: what is installed, what runs, and whether it computes rightly."""

from __future__ import annotations

import argparse

from .. import doctor

BRIEF = "show versions, devices and backends, and check every kernel against the reference"
DESCRIPTION = f"{BRIEF.capitalize()}."


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `fastsnn doctor` its flags, of which there are none."""
    parser.set_defaults(run_command=lambda _: doctor.main())
