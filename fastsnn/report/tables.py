"""The tables of a report. Columns are what differs between their lines; the page says once what all cells share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..sweep import Ledger
from ..sweep.figure import COLOURS, wilson
from ..sweep.judged import JudgedLedger
from ..sweep.report import ATTACK, Row, attack_name, differing, differs, has, named, shared, written
from . import published

_TOLD = ("data", "model", "pool", "attack", "steps", "seed")  # by the columns that the table of poolings always has
_NAMED = ("data", "model", "pool", "attack", "seed")  # by the title of a verdict, or of no importance to it
Table = dict[str, Any]  # title, note, head and lines, as the page takes them


def all_of_them(ledger: JudgedLedger, rows: Sequence[Row]) -> list[Table]:
    """Return the tables of a ledger's results, of which there is at least one."""
    about = [poolings(rows), worst_case(ledger, rows), *verdicts(ledger, rows)]
    return [*about, _every_cell(rows), throughput(rows, ledger.runs())]


def poolings(rows: Sequence[Row]) -> Table:
    """Return max against average pooling as in the paper's tables 2 and 3, at its budget or the nearest.

    A line is an attack in all its settings; what is averaged are seeds, and nothing else.
    """
    eps = min({row["eps_255"] for row in rows}, key=lambda budget: (abs(budget - published.EPS_255), budget))
    there = [row for row in rows if row["eps_255"] == eps]
    others = [name for name in differing(there) if name not in _TOLD]
    lines: dict[tuple, list[Row]] = {}
    for row in there:
        about = (row[name] if has(row, name) else None for name in others)
        lines.setdefault((row["data"], row["model"], attack_name(row), *about), []).append(row)
    pools = [pool for pool in COLOURS if any(row["pool"] == pool for row in there)]
    body = []
    for key, line in lines.items():
        seeds = sorted({row["seed"] for row in line})
        of_pool = [[row for row in line if row["pool"] == pool] for pool in pools]
        results = [_mean(some, field, len(seeds)) for field in ("accuracy", "clean_accuracy") for some in of_pool]
        body.append([*key, " ".join(map(str, seeds)), *results])
    note = "Accuracy in %, means over the seeds." if differs(there, "seed") else "Accuracy in %."
    note += _here(rows, there)
    note += f" {published.ABOUT}" if "(paper" in str(body) else ""
    head = ["data", "network", "attack", *others, "seeds", *pools, *(f"clean {pool}" for pool in pools)]
    return _table(f"Max against average pooling at eps = {eps:g}/255", note, head, body)


def _mean(some: Sequence[Row], field: str, seeds: int) -> str:
    """Return the mean of one attack's rows, and beside it what the paper has, and whether seeds are missing."""
    if not some:
        return ""
    text = f"{sum(row[field] for row in some) / len(some):.2f}"
    paper = published.beside(some[0], "clean" if field == "clean_accuracy" else some[0]["attack"])
    text += "" if paper is None else f" (paper {paper:g})"
    return text if len(some) == seeds else f"{text} ({len(some)} of {seeds} seeds)"


def worst_case(ledger: Ledger, rows: Sequence[Row]) -> Table:
    """Return each network's accuracy under all of its attacks at once, apart for what was not attacked alike."""
    names = [name for name in differing(rows) if name not in ATTACK and name not in ("data", "model", "pool", "attack")]
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        about = (row[name] for name in ("data", "model", "pool", *names))
        groups.setdefault((row["network"], *about, row["bn"], row["eps_255"], row["images"]), []).append(row)
    lines = []
    for (_, *about, images), some in groups.items():
        correct, _ = ledger.worst_case([row["cell"] for row in some])
        low, high = wilson(correct, images)
        result = [len(some), images, f"{100 * correct / images:.2f}", f"{low:.1f} to {high:.1f}"]
        lines.append([*about, *result])
    note = (
        "An image counts as right if it stays right under every attack made with that eps and bn: never more than the "
        "least of their accuracies. The interval is Wilson's, 95 %."
    )
    head = ["data", "network", "pool", *names, "bn", "eps/255", "attacks", "images", "accuracy %", "interval"]
    return _table("Worst case over attacks, image by image", note, head, lines)


def verdicts(ledger: JudgedLedger, rows: Sequence[Row]) -> list[Table]:
    """Return a table for each verdict of `fastsnn verdict`: its checks, and the conclusion as a note."""
    names = [name for name in differing(rows) if name not in ATTACK and name not in _NAMED]
    rows_of, found = {row["network"]: row for row in rows}, []
    for one in ledger.verdicts():
        row = rows_of[one["network"]]
        others = named({name: row[name] for name in names})
        title = f"Masked gradients? {row['data']}, {row['model']}, {row['pool']} pooling, seed {row['seed']}"
        title += f", {others}" if others else ""
        how = f"{one['images']} images, PGD-{one['steps']} with alpha {one['alpha']:g}, frozen statistics"
        note = f"{one['conclusion']} {how}, run {one['run']}."
        lines = [[name, result, seen] for name, seen, result in one["checks"]]
        found.append(_table(title, note, ["check", "result", "seen"], lines))
    return found


def _every_cell(rows: Sequence[Row]) -> Table:
    always = ("data", "model", "pool", "attack", "eps_255")
    names = [*always, *(name for name in differing(rows) if name not in (*always, "images")), "images"]
    lines = []
    for row in rows:
        low, high = wilson(row["correct"], row["images"])
        result = [f"{row['accuracy']:.2f}", f"{low:.1f} to {high:.1f}", f"{row['clean_accuracy']:.2f}"]
        lines.append([*(row[name] for name in names), *result, row["zero_gradients"], row["run"]])
    note = "Zero gradients: images at which no gradient-based attack can take a first step. Runs are listed below."
    return _table("Every cell", note, [*names, "accuracy %", "interval", "clean %", "zero gradients", "run"], lines)


def throughput(rows: Sequence[Row], runs: Sequence[dict]) -> Table:
    """Return adversarial images per second, apart for what differs but seeds and eps, and for each machine."""
    machines = {run["id"]: _machine(run["machine"]) for run in runs}
    in_columns = ("model", "pool", "attack", "steps", "seed", "images")
    others = [name for name in differing(rows) if name not in in_columns]
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        about = (row["model"], row["pool"], attack_name(row), *(row[name] for name in others))
        groups.setdefault((*about, machines[row["run"]]), []).append(row)
    lines = []
    for key, some in groups.items():
        images, seconds = sum(row["images"] for row in some if _is_attacked(row)), sum(row["seconds"] for row in some)
        if images:
            lines.append([*key, images, f"{seconds:.1f}", f"{images / max(seconds, 1e-9):.1f}"])
    note = "Adversarial images made and scored per second, over the time from one saved pass to the next."
    note += " At eps = 0 nothing is attacked, and nothing counts."
    head = ["model", "pool", "attack", *others, "machine", "adversarial images", "seconds", "images/s"]
    return _table("Throughput", note, head, lines)


def _is_attacked(row: Row) -> bool:
    return row["eps_255"] > 0 or row["bn"] == "drift"  # where statistics move, eps = 0 is attacked like all others


def _machine(about: dict) -> str:
    what = " + ".join(about.get("gpus", ())) or about.get("processor", "")
    return f"{what}, {about['threads']} threads" if "threads" in about else what


def _here(rows: Sequence[Row], there: Sequence[Row]) -> str:
    """Return a sentence with what some of the rows share, though not all of them do."""
    told = (*_TOLD, *differing(there))
    text = named(shared(there, [name for name in differing(rows) if name not in told]))
    return f" All with {text}." if text else ""


def _table(title: str, note: str, head: list[str], lines: list[list]) -> Table:
    return {"title": title, "note": note, "head": head, "lines": [[written(value) for value in line] for line in lines]}
