"""What the founding paper published of SEW-ResNets of width 64, T = 10, under FGSM and PGD-7 at 6/255.

Accuracies (%) of its tables 2 and 3; zeros in the gradient (%) of its figures 3 and 5, by pooling and kind of layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EPS_255, STEPS, ALPHA, T, K, WIDTH = 6, 7, 0.01, 10, 8, 64
ATTACKED = ("drift", "atan:2", 1)  # bn, surrogate and restarts: its code attacks in train mode
ABOUT = (
    "In brackets what the paper published for that attack on that network; its training was 100 epochs of Adam "
    "at a constant lr of 0.001, with a batch of 16."
)
_NAMES = {18: "sew_resnet18", 34: "sew_resnet34", 50: "sew_resnet50"}
_TABLES = {  # data: depth: (FGSM, PGD, clean) with max pooling, and with average pooling
    "cifar10": {
        18: ((46.99, 34.33, 73.78), (45.71, 25.72, 75.76)),
        34: ((49.20, 36.98, 74.16), (48.72, 29.82, 76.17)),
        50: ((51.09, 40.55, 73.34), (49.88, 33.29, 75.28)),
    },
    "cifar100": {
        18: ((20.81, 13.47, 42.19), (17.93, 8.65, 43.32)),
        34: ((19.91, 13.25, 41.81), (20.07, 10.37, 44.58)),
        50: ((21.27, 16.03, 38.91), (22.02, 13.37, 43.40)),
    },
    "cifar10_dvs": {
        18: ((47.19, 21.47, 75.18), (46.27, 13.94, 77.77)),
        34: ((49.03, 18.65, 75.29), (47.66, 12.54, 76.43)),
        50: ((48.52, 22.34, 76.53), (47.01, 14.30, 78.35)),
    },
}
ACCURACIES = {
    (data, _NAMES[depth], pool): dict(zip(("fgsm", "pgd", "clean"), values, strict=True))
    for data, depths in _TABLES.items()
    for depth, pools in depths.items()
    for pool, values in zip(("max", "avg"), pools, strict=True)
}
ZEROS = {"max": {"IF neuron": 29.01, "pooling": 37.88}, "avg": {"IF neuron": 16.52}}


def beside(row: Mapping[str, Any], what: str) -> float | None:
    """Return the published accuracy beside a row of a ledger's results, None where the paper has no such cell.

    Args:
        row: of the view `results`.
        what: "fgsm", "pgd" or "clean".

    The row's attack has to be the paper's in everything, its training need not.
    """
    same = (row["width"], row["T"], row["K"], row["defence"]) == (WIDTH, T, K, "none")
    same &= row["coding"] in ("phase", "events")
    if what != "clean":
        same &= row["attack"] == what and row["eps_255"] == EPS_255
        same &= (row["bn"], row["surrogate"], row["restarts"]) == ATTACKED
    if what == "pgd":
        same &= (row["steps"], row["alpha"]) == (STEPS, ALPHA)
    return ACCURACIES.get((row["data"], row["model"], row["pool"]), {}).get(what) if same else None
