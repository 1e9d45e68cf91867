"""Checks and measures everything that needs a GPU, in one command and a few minutes.

    python -m bench.gpu [--minutes 7.5] [--out bench/results]    # on a machine with a GPU
    python -m bench.gpu --dry-run                              # the same code, tiny, on a CPU
    python -m bench.gpu --readme                               # the README's table from the newest run

Needs nothing but this repository and what is installed; without SpikingJelly its rows are left out, which is said.
After each section both files are written anew, so that what was measured stays, whatever happens next. A section that
fails is recorded and the others run. Ends with 1 if one failed, or an answer or a check was wrong.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from . import results
from .attacks import against_spikingjelly, graphs, memory, throughput
from .card import ROOT, Card, ceilings, describe
from .checks import checks
from .kernels import measure as kernels
from .sizes import DRY, FULL

SECTIONS: dict[str, tuple[Callable, float]] = {  # what it measures, and its share of the time
    "ceilings": (ceilings, 0.03),
    "kernels": (kernels, 0.17),
    "against_spikingjelly": (against_spikingjelly, 0.3),
    "graphs": (graphs, 0.1),
    "throughput": (throughput, 0.12),
    "memory": (memory, 0.06),
    "checks": (checks, 0.22),
}


class Clock:
    """The time of a section; what one leaves is the next one's."""

    def __init__(self, until: float):
        self.began, self.until = time.monotonic(), until

    def left(self) -> float:
        """Return the seconds left, negative when it is over."""
        return self.until - time.monotonic()

    def is_over(self, share: float = 1.0) -> bool:
        """Tell whether this share of the section's time is gone."""
        return time.monotonic() - self.began >= share * (self.until - self.began)


def measure(card: Card, sizes, minutes: float, folder: Path) -> dict:
    """Run all sections, and write the files after each."""
    found = {
        "date": datetime.date.today().isoformat(),
        "dry_run": not card.is_gpu,
        "about": describe(card),
        "sizes": sizes._asdict(),
        "sections": {},
    }
    began, share = time.monotonic(), 0.0
    for name, (section, part) in SECTIONS.items():
        share += part
        record = found["sections"][name] = {"rows": [], "seconds": 0.0, "failed": "", "cut_short": False}
        clock, start = Clock(began + 60 * minutes * share), time.monotonic()
        try:
            for row in section(card, sizes, clock):
                record["rows"].append(row)
                print(f"{time.monotonic() - began:5.0f} s  {name}: {_told(row)}", file=sys.stderr, flush=True)
        except Exception:
            record["failed"] = traceback.format_exc()
        record["seconds"], record["cut_short"] = time.monotonic() - start, clock.is_over()
        if card.is_gpu:
            torch.cuda.empty_cache()
        paths = results.write(found, folder)
        print(f"\n{results.table(name, record)}\n", flush=True)
    print(f"wrote {' and '.join(str(path) for path in paths)}")
    return found


def is_fine(found: dict) -> bool:
    """Tell whether no section failed, and no answer and no check was wrong."""
    records = found["sections"].values()
    return not any(record["failed"] for record in records) and not any(
        row.get("wrong") or row.get("fine") is False for record in records for row in record["rows"]
    )


def _told(row: dict) -> str:
    """Return what a row is about, for whoever waits."""
    names = ("what", "op", "network", "check", "shape", "dtype", "batch", "products", "wrong", "note")
    return ", ".join(str(row[name]) for name in names if name in row)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser("python -m bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU: proves that it runs")
    parser.add_argument("--minutes", type=float, default=7.5, help="about how long, above 0 [7.5]")
    parser.add_argument("--out", type=Path, help="folder of the files [bench/results; runs/bench-gpu for a dry run]")
    parser.add_argument("--readme", action="store_true", help="print the README's table, measure nothing")
    options = parser.parse_args(arguments)
    if options.readme:
        print(results.readme_table(options.out or results.RESULTS))
        return 0
    if not options.minutes > 0:
        parser.error(f"--minutes is {options.minutes:g}, expected above 0")
    if not options.dry_run and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --dry-run walks through the same code on the CPU")
    card = Card("cpu" if options.dry_run else "cuda")
    folder = options.out or (ROOT / "runs" / "bench-gpu" if options.dry_run else results.RESULTS)
    return 0 if is_fine(measure(card, DRY if options.dry_run else FULL, options.minutes, folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
