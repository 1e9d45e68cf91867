"""`fastsnn sweep --dry-run`: the cells, and how long they may take on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from ..sweep import Settings, plan
from ..sweep.estimate import estimate


def dry_run(settings: Settings, out: Path) -> int:
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
