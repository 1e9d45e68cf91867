"""Accuracy under FGSM and PGD for every surrogate of the attacker and both protocols: a table of docs/sparsity.md.

    python -m bench.masked_gradients question [--out docs/results/masked-gradients.csv]
    python -m bench.masked_gradients docs/results/masked-gradients.csv

The first takes the folder of the sweeps that docs/sparsity.md names ("Are undefended SEW-ResNets robust?") and writes
all cells of its ledger to a file, as `fastsnn export` does; both print the table, and what more steps do, in means over
seeds.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from fastsnn import files
from fastsnn.sweep import Ledger, LedgerError
from fastsnn.sweep.report import written

from .over_seeds import OverSeeds

COLUMNS = (("max", "frozen"), ("max", "drift"), ("avg", "frozen"), ("avg", "drift"))
_HEADS = ("max, frozen: FGSM / PGD", "max, drift", "average, frozen", "average, drift")
_OWN = "atan:2"  # the networks' own surrogate


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and write the file where that is asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.masked_gradients")
    parser.add_argument("source", type=Path, help="the folder of a sweep, or a CSV file of its results")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the results to this CSV file")
    arguments = parser.parse_args(argv)
    try:
        lines = of_ledger(arguments.source) if arguments.source.is_dir() else read(arguments.source)
        print("\n".join((*table(lines), "", *longer(lines))))
        if arguments.out is not None:
            text = io.StringIO()
            writer = csv.DictWriter(text, lines[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
            files.write(arguments.out, text.getvalue().encode())
    except (OSError, ValueError, LedgerError) as error:
        print(f"bench.masked_gradients: {error}", file=sys.stderr)
        return 2
    return 0


def of_ledger(folder: Path) -> list[dict[str, str]]:
    """Return all cells of a sweep's ledger, with the columns and the writing of a CSV file.

    Raises:
        LedgerError: there is none, or it cannot be read.
    """
    with Ledger.read(folder) as ledger:
        return [{name: str(written(value)) for name, value in dict(row).items()} for row in ledger.results()]


def read(file: Path) -> list[dict[str, str]]:
    """Return the lines of a sweep's results.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file.
    """
    with file.open(newline="") as text:
        lines = list(csv.DictReader(text))
    missing = {"pool", "bn", "surrogate", "attack", "steps", "eps_255", "seed", "accuracy"}.difference(*lines[:1])
    if missing:
        raise ValueError(f"{file} has no column {', '.join(sorted(missing))}; expected the results of a sweep.")
    return lines


def over_seeds(lines: Iterable[dict[str, str]], **what: str) -> OverSeeds:
    """Return the accuracies in % of the cells with these values, in the order of seeds.

    Raises:
        ValueError: there is no such cell, or a seed has several.
    """
    some = [line for line in lines if what.items() <= line.items()]
    seeds = [line["seed"] for line in some]
    told = ", ".join(f"{name} {value}" for name, value in what.items())
    if not some:
        raise ValueError(f"there is no cell with {told}; run the sweeps that docs/sparsity.md names.")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seed {max(seeds, key=seeds.count)} has several cells with {told}, expected one.")
    return OverSeeds(tuple(float(line["accuracy"]) for line in sorted(some, key=lambda line: int(line["seed"]))))


def table(lines: Sequence[dict[str, str]]) -> list[str]:
    """Return a Markdown table: a line for each surrogate, widest first, with FGSM's and PGD's accuracies."""
    steps = min((line["steps"] for line in lines if line["attack"] == "pgd"), key=int, default="7")
    eps = written(max((float(line["eps_255"]) for line in lines), default=0.0))
    surrogates = sorted({line["surrogate"] for line in lines}, key=lambda name: float(name.partition(":")[2]))
    rows = [("none (eps = 0), FGSM's and PGD's passes", _OWN, "0")]
    rows += [(f"{name} (its own)" if name == _OWN else name, name, eps) for name in surrogates]
    found = [
        f"| the attacker's surrogate | {' | '.join(_HEADS)} |".replace("PGD |", f"PGD-{steps} |"),
        "|---|---|---|---|---|",
    ]
    for label, surrogate, budget in rows:
        cells = []
        for pool, bn in COLUMNS:
            how = {"pool": pool, "bn": bn, "surrogate": surrogate, "eps_255": budget}
            means = (
                over_seeds(lines, **how, attack=attack, steps=n).mean for attack, n in (("fgsm", "1"), ("pgd", steps))
            )
            cells.append(" / ".join(f"{mean:.1f}" for mean in means))
        found.append(f"| {label} | {' | '.join(cells)} |")
    return found


def longer(lines: Sequence[dict[str, str]]) -> list[str]:
    """Return a line for each pooling: PGD with every number of steps, over the seeds that have them all."""
    found = []
    numbers = sorted({line["steps"] for line in lines if line["attack"] == "pgd"}, key=int)
    for pool in dict.fromkeys(pool for pool, _ in COLUMNS):
        own = {"pool": pool, "bn": "frozen", "surrogate": _OWN, "attack": "pgd"}
        some = [line for line in lines if own.items() <= line.items() and float(line["eps_255"])]
        seeds = set.intersection(*({line["seed"] for line in some if line["steps"] == n} for n in numbers))
        shared = [line for line in some if line["seed"] in seeds]
        told = (f"PGD-{n} {over_seeds(shared, steps=n).mean:.1f}" for n in numbers if shared)
        found.append(f"{pool}, frozen, seed {', '.join(sorted(seeds, key=int))}: {', '.join(told)}")
    return found


if __name__ == "__main__":
    sys.exit(main())
