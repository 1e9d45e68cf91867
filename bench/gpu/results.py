"""What a run leaves: a JSON file with everything, a Markdown file with its tables, and the README's table from them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from fastsnn import files

from .card import ROOT

RESULTS = ROOT / "bench" / "results"
NONE_YET = "On a GPU: **not yet measured**."


def _rate(found: dict | None) -> str:
    return f"{1e6 * found['seconds']:.1f} us, {found['of_copy']:.1%}" if found else ""


def _milliseconds(seconds: float | None) -> str:
    return f"{1e3 * seconds:.1f}" if seconds is not None else ""


def _microseconds(seconds: float | None) -> str:
    return f"{1e6 * seconds:.0f}" if seconds is not None else ""


def _percent(share: float | None) -> str:
    return f"{share:.1%}" if share is not None else ""


def _mebibytes(size: int | None) -> str:
    return f"{size / 2**20:.0f}" if size is not None else ""


def _times(row: dict, name: str) -> str:
    """Return how many times as long a baseline took."""
    return f"{1e3 * row[name]:.1f} ({row[name] / row['ours']:.1f}x)" if name in row else ""


Column = tuple[str, Callable[[dict], str]]
TABLES: dict[str, tuple[str, tuple[Column, ...]]] = {  # section -> its heading, and columns
    "ceilings": (
        "What the card can do",
        (("", lambda row: row["what"]), ("measured", lambda row: f"{row['amount']:.4g} {row['unit']}")),
    ),
    "kernels": (
        "Kernels, L2 flushed: time, and bytes that must move per second as a share of a large copy's",
        (
            ("op", lambda row: row["op"]),
            ("shape", lambda row: "x".join(map(str, row.get("shape", ())))),
            ("type", lambda row: row.get("dtype", "")),
            ("triton", lambda row: _rate(row.get("triton"))),
            ("cuda", lambda row: _rate(row.get("cuda"))),
            ("cpu", lambda row: _rate(row.get("cpu"))),
            ("fastest", lambda row: row.get("fastest", "")),
        ),
    ),
    "against_spikingjelly": (
        "PGD, ms: (a) the paper's loop on SpikingJelly, (b) frozen weights, (c) frozen weights and torch.compile",
        (
            ("network", lambda row: row["network"]),
            ("batch", lambda row: str(row["batch"])),
            ("products", lambda row: row["products"]),
            ("ours", lambda row: _milliseconds(row.get("ours"))),
            ("ours, drift", lambda row: _milliseconds(row.get("ours_drift"))),
            ("a", lambda row: _times(row, "a")),
            ("b", lambda row: _times(row, "b")),
            ("c", lambda row: _times(row, "c")),
            ("equal after a step", lambda row: _percent(row.get("equal_places"))),
        ),
    ),
    "graphs": (
        "Recorded steps: ms of an attack, and the time without a kernel",
        (
            ("network", lambda row: row["network"]),
            ("batch", lambda row: str(row["batch"])),
            ("steps", lambda row: str(row["steps"])),
            ("graph", lambda row: _milliseconds(row.get("on"))),
            ("none", lambda row: _milliseconds(row.get("off"))),
            ("idle, graph", lambda row: _percent(row.get("on_idle"))),
            ("idle, none", lambda row: _percent(row.get("off_idle"))),
            ("longest gap, graph, us", lambda row: _microseconds(row.get("on_longest_gap"))),
            ("equal", lambda row: _percent(row.get("equal_places"))),
        ),
    ),
    "throughput": (
        "Images per second of whole attacks",
        (
            ("network", lambda row: row["network"]),
            ("batch", lambda row: str(row["batch"])),
            *(
                (name, lambda row, name=name: f"{row[name]:.1f}" if name in row else "")
                for name in ("fp32", "fast", "a_ieee", "b_ieee", "a_tf32", "b_tf32")
            ),
        ),
    ),
    "memory": (
        "MiB that two steps need beyond network and input",
        (
            ("network", lambda row: row["network"]),
            ("batch", lambda row: str(row["batch"])),
            *(
                (name, lambda row, name=name: _mebibytes(row.get(name)))
                for name in ("fp32", "fast", "a_ieee", "b_ieee")
            ),
        ),
    ),
    "checks": (
        "Checks",
        (
            ("check", lambda row: row["check"]),
            ("said", lambda row: row["said"]),
            ("fine", lambda row: {True: "yes", False: "NO", None: "stopped early"}[row["fine"]]),
        ),
    ),
}


def table(section: str, record: dict) -> str:
    """Return a section in Markdown: heading, table, notes, and why it failed if it did."""
    heading, columns = TABLES[section]
    lines = [f"### {heading}", ""]
    if record["rows"]:
        cells = [[cell(row) for _, cell in columns] for row in record["rows"]]
        kept = [i for i in range(len(columns)) if any(line[i] for line in cells)]
        lines += [_line([columns[i][0] for i in kept]), _line(["---"] * len(kept))]
        lines += [_line([line[i].replace("|", "/") for i in kept]) for line in cells]
    else:
        lines += ["Nothing was measured."]
    notes = [f"{key}: {row[key].strip()}" for row in record["rows"] for key in ("note", "wrong") if row.get(key)]
    lines += [f"\n- {note}" for note in dict.fromkeys(notes)]
    if record["cut_short"]:
        lines += ["\nCut short: the time was over."]
    if record["failed"]:
        lines += ["\nThis section FAILED:", "", "```", record["failed"].strip(), "```"]
    return "\n".join(lines)


def markdown(results: dict) -> str:
    """Return the whole run in Markdown."""
    return "\n\n".join(
        [
            "## " + ("A dry run" if results["dry_run"] else "A run") + f" of bench.gpu, {results['date']}",
            _about(results),
        ]
        + [table(name, record) for name, record in results["sections"].items()]
    )


def write(results: dict, folder: Path) -> tuple[Path, Path]:
    """Write both files, named after the day and the card; a later run of the same day replaces them."""
    about = results["about"]
    name = re.sub(r"[^a-z0-9]+", "-", f"{results['date']} {about.get('gpu', about['device'])}".lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{name}.json", folder / f"{name}.md"
    for path, text in zip(paths, (json.dumps(results, indent=1), markdown(results)), strict=True):
        files.write(path, (text + "\n").encode())
    return paths


def readme_table(folder: Path = RESULTS) -> str:
    """Return the README's table from the newest real run in a folder, or what it says until there is one."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    runs = [run for run in runs if not run["dry_run"]]
    if not runs:
        return NONE_YET
    run = max(runs, key=lambda run: run["date"])
    lines = [f"On a GPU: {_about(run)}", ""]
    lines += [_line(["", "fastsnn", "SpikingJelly", "ratio"]), _line(["---"] * 4)]
    against = {"a": "the paper's loop", "b": "frozen weights", "c": "frozen weights and torch.compile"}
    for row in run["sections"].get("against_spikingjelly", {"rows": []})["rows"]:
        for name, loop in against.items():
            if name in row and "wrong" not in row:
                what = f"PGD-{row['steps']}, {row['network']}, batch {row['batch']}, {row['precision']}"
                ours, theirs = (f"{1e3 * row[side]:.1f} ms" for side in ("ours", name))
                lines.append(_line([what, ours, f"{theirs}, {loop}", f"{row[name] / row['ours']:.1f}x"]))
    return "\n".join(lines)


def _about(results: dict) -> str:
    about, versions = results["about"], results["about"]["versions"]
    parts = [about.get("gpu", about["processor"])]
    parts += [f"driver {about['driver']}"] if about.get("driver") else []
    parts += [f"{name} {version}" for name, version in versions.items() if version and name in NAMED]
    return ", ".join(parts) + f"; commit {about['commit']}."


NAMED = ("torch", "triton", "spikingjelly", "cupy-cuda13x")


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
