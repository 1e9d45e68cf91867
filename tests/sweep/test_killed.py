"""A sweep that is killed again and again ends with the same ledger as one that was left alone."""

import random
import signal
import time

from fastsnn.sweep import Ledger

from .processes import Command

KILLS = 20
FLAGS = [
    *("--width", "2", "--T", "2", "--epochs", "1", "--train-batch-size", "120", "--images", "40", "--steps", "2", "3"),
    *("--eps", "0", "4", "16", "--seed", "1", "2", "3", "4", "5", "6", "--bn", "frozen", "drift"),
    *("--surrogate", "atan:2", "sigmoid:4", "--pool", "avg", "--progress", "lines"),
]
CELLS = 6 * 2 * 2 * (1 + 2) * 3


def start(out):
    return Command(["sweep", *FLAGS, "--out", str(out)], out.with_suffix(".txt"))


def content(out):
    """Return every cell with all of its images, but for numbers that depend on when it was written."""
    with Ledger.read(out) as ledger:
        rows = [dict(row) for row in ledger.results()]
        by_cell = {row["cell"]: ledger.samples(row["cell"]) for row in rows}
        finished = [run["finished"] for run in ledger.runs()]
    shown = [{name: row[name] for name in row if name not in ("cell", "network", "run", "seconds")} for row in rows]
    return [(row, by_cell[numbered["cell"]]) for row, numbered in zip(shown, rows, strict=True)], finished


def test_kills_at_random_moments_lose_nothing_and_count_nothing_twice(tmp_path):
    undisturbed = start(tmp_path / "undisturbed")
    out, killed, saved = tmp_path / "killed-0", 0, [0]
    while killed < KILLS:
        process = start(out)
        process.says("networks:")  # and works from here on
        time.sleep(random.uniform(0, 2))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        with Ledger.read(out) as ledger:
            saved.append(len(ledger.results()))
        assert saved[-1] >= saved[-2], "what was saved is lost"
        if saved[-1] == CELLS:  # done before it was killed often enough: begin another
            out, saved = tmp_path / f"killed-{killed}", [0]
    assert start(out).wait() == 0 and undisturbed.wait() == 0
    expected, _ = content(tmp_path / "undisturbed")
    for each in {tmp_path / "killed-0", out}:
        found, finished = content(each)
        assert each == out or None in finished, "it was never killed"
        assert len(found) == CELLS and found == expected
        assert (each / "results.csv").read_bytes() == (tmp_path / "undisturbed" / "results.csv").read_bytes()
