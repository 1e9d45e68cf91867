"""The paper's comparison on digits, for several seeds of training, under its protocol and under frozen batch norm.

    python -m bench.evidence [--out runs/evidence] [--seeds 3407 1 2] [--images 180] [--dry-run] [--smoke]

Three sweeps, each in a folder of its own below --out, train SEW-ResNet18 (max and average pooling), Spiking-ResNet18
and VGG-11 (without and with SNN-RAT) and attack them with FGSM and PGD-7 on the encoded input. Killed or interrupted,
the same command goes on. Beside the folders come evidence.md, evidence.json and evidence.png (accuracy over seeds, how
networks differ in it, and how the protocols do), and evidence.csv with a line per network, attack, bn and eps.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: a busy machine is slowed by threads that spin

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsnn import files
from fastsnn.sweep import Ledger, Settings, prepare, report, sweep
from fastsnn.sweep.estimate import estimate
from fastsnn.sweep.folder import check
from fastsnn.sweep.progress import Lines, Silent

from . import evidence_shown as shown
from .over_seeds import OverSeeds

_ALL = {
    "bn": ("drift", "frozen"),  # the paper's train mode while an attack is made, and running statistics
    "eps": (6, 16),  # the paper's, and about as far as its 7 steps of 0.01 reach
    "batch_size": 16,  # the paper's; with drifting statistics results depend on it
}
SWEEPS = {
    "sew_resnet18": {"models": ("sew_resnet18",), "pools": ("max", "avg")},
    "spiking_resnet18": {"models": ("spiking_resnet18",), "pools": ("max",)},
    # narrower, as its first layers are not strided; attacked through the surrogate that it is trained with
    "vgg11": {
        "models": ("vgg11",),
        "pools": ("avg",),
        "width": 8,
        "defences": ("none", "snn_rat"),
        "surrogates": ("triangle:1",),
    },
}
_SMOKE = {"width": 4, "T": 2, "epochs": 1, "batch_size": 4}

NAMES = {  # model, pooling, defence
    ("sew_resnet18", "max", "none"): "SEW-ResNet18, max",
    ("sew_resnet18", "avg", "none"): "SEW-ResNet18, average",
    ("spiking_resnet18", "max", "none"): "Spiking-ResNet18, max",
    ("vgg11", "avg", "none"): "VGG-11, average",
    ("vgg11", "avg", "snn_rat"): "VGG-11, SNN-RAT",
}
PAIRS = {  # of which the paper has the first as the more robust one
    "SEW: max - average": ("SEW-ResNet18, max", "SEW-ResNet18, average"),
    "SEW max - Spiking": ("SEW-ResNet18, max", "Spiking-ResNet18, max"),
    "SEW max - VGG-11": ("SEW-ResNet18, max", "VGG-11, average"),
    "SEW max - SNN-RAT": ("SEW-ResNet18, max", "VGG-11, SNN-RAT"),
    "VGG-11: SNN-RAT - none": ("VGG-11, SNN-RAT", "VGG-11, average"),
}
CLEAN = "clean"
Scores = dict[tuple[str, str, str], OverSeeds]  # accuracy in % by bn, network and column


def settings(seeds: Sequence[int], images: int, smoke: bool = False) -> dict[str, Settings]:
    """Return the settings of each sweep, by the name of its folder."""
    tiny = _SMOKE if smoke else {}
    how = {"seeds": tuple(seeds), "images": images}
    return {name: Settings(**_ALL | own | tiny | how) for name, own in SWEEPS.items()}


def run(sweeps: dict[str, Settings], out: Path, progress: Silent) -> None:
    """Do what is missing of all sweeps; refuse what cannot work before the first begins."""
    for name, one in sweeps.items():
        prepare(one, out / name)
    for name, one in sweeps.items():
        for _ in sweep(one, out / name, progress):
            pass


def cells(sweeps: dict[str, Settings], out: Path) -> list[dict[str, Any]]:
    """Return a row of the results per cell of the sweeps."""
    found = []
    for name in sweeps:
        with Ledger.read(out / name) as ledger:
            found += map(dict, ledger.results_of_plan())
    return found


def made_by(sweeps: dict[str, Settings], out: Path) -> dict[str, Any]:
    """Return settings, versions and machine of each sweep's last run, from its ledger."""
    found = {}
    for name in sweeps:
        with Ledger.read(out / name) as ledger:
            found[name] = ledger.runs()[-1]
    return found


def scores(rows: Sequence[dict[str, Any]]) -> Scores:
    """Return accuracies over seeds, in the order of the tables; without an attack they do not depend on bn."""
    values: dict[tuple[str, str, str], dict[int, float]] = {}
    for row in sorted(rows, key=_place):
        for column, name in ((CLEAN, "clean_accuracy"), (column_of(row), "accuracy")):
            values.setdefault((row["bn"], network_of(row), column), {})[row["seed"]] = row[name]
    return {key: OverSeeds(tuple(by_seed[seed] for seed in sorted(by_seed))) for key, by_seed in values.items()}


def _place(row: dict[str, Any]) -> tuple:
    return _ALL["bn"].index(row["bn"]), list(NAMES.values()).index(network_of(row)), row["eps_255"], row["attack"]


def network_of(row: dict[str, Any]) -> str:
    """Return e.g. "SEW-ResNet18, max"."""
    return NAMES[row["model"], row["pool"], row["defence"]]


def column_of(row: dict[str, Any]) -> str:
    """Return e.g. "PGD-7 16"."""
    return f"{report.attack_name(row)} {row['eps_255']:g}"


def differences(found: Scores) -> Scores:
    """Return for each of PAIRS the first network's accuracy less the second's, seed by seed."""
    both = {}
    for bn in _ALL["bn"]:
        for pair, (first, second) in PAIRS.items():
            columns = [column for *key, column in found if key == [bn, first]]
            both |= {(bn, pair, column): found[bn, first, column] - found[bn, second, column] for column in columns}
    return both


def flattery(found: Scores) -> Scores:
    """Return by how much each network looks more robust with drifting statistics than with frozen ones."""
    attacked = [(network, column) for bn, network, column in found if bn == "drift" and column != CLEAN]
    return {
        ("drift - frozen", network, column): found["drift", network, column] - found["frozen", network, column]
        for network, column in attacked
    }


def main(arguments: list[str] | None = None) -> None:
    """Run, print the tables, write the files."""
    parser = argparse.ArgumentParser("python -m bench.evidence", description=__doc__.splitlines()[0])
    text = "folder of the sweeps and the files; by default runs/evidence, or runs/evidence-smoke"
    parser.add_argument("--out", type=Path, help=text)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3407, 1, 2], help="of training and random starts")
    parser.add_argument("--images", type=int, help="test images, from the first, at most 360; by default 180, or 8")
    parser.add_argument("--dry-run", action="store_true", help="say how long it would take, and begin nothing")
    parser.add_argument("--smoke", action="store_true", help="tiny networks, hardly trained, on 8 images")
    options = parser.parse_args(arguments)
    out = options.out or Path("runs", "evidence-smoke" if options.smoke else "evidence")
    images = (8 if options.smoke else 180) if options.images is None else options.images
    sweeps = settings(options.seeds, images, options.smoke)
    if options.dry_run:
        for name, one in sweeps.items():
            check(one, out / name)
            parts = estimate(one, out / name)
            learns, attacks = (sum(getattr(part, work) for part in parts) for work in ("training", "attacks"))
            print(f"{name:<18}{len(parts)} networks, about {learns:.0f} s to train and {attacks:.0f} s to attack them")
        return
    run(sweeps, out, Lines())
    write(sweeps, out)


def write(sweeps: dict[str, Settings], out: Path) -> None:
    """Print the tables of finished sweeps, and write the files."""
    rows, about = cells(sweeps, out), made_by(sweeps, out)
    found = scores(rows)
    tables = {  # title, numbers, and whether they are differences
        "accuracy": ("Accuracy (%)", found, False),
        "differences": ("First network less second (points)", differences(found), True),
        "flattery": ("Drifting less frozen statistics (points)", flattery(found), True),
    }
    content = {"sweeps": about}
    for name, (_, numbers, _) in tables.items():
        keyed = [dict(zip(("bn", "network", "column"), key, strict=True)) for key in numbers]
        content[name] = [key | one.as_dict() for key, one in zip(keyed, numbers.values(), strict=True)]
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in rows}))
    under = f"{rows[0]['images']} test images of digits; a dot is a seed of training ({seeds}), a dash their mean"
    report.write_csv(rows, out / "evidence.csv")
    files.write(out / "evidence.json", (json.dumps(content, indent=1) + "\n").encode())
    files.write(out / "evidence.md", ("\n\n".join(shown.markdown(*table) for table in tables.values()) + "\n").encode())
    files.write(out / "evidence.png", shown.png(found, under))
    print(f"\n{rows[0]['images']} test images of digits. Means over the seeds {seeds};")
    print("below them the least and the most. * differs from 0 (95 %, Student's t).")
    for table in tables.values():
        print(f"\n{shown.text(*table)}")
    print(f"\n{out}: evidence.csv, evidence.json, evidence.md, evidence.png")


if __name__ == "__main__":
    main()
