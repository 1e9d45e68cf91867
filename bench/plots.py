"""Two figures: cost over batch, steps and T, which should be linear, and throughput over the batch size.

    python -m bench.plots [--out docs/figures] [--smoke]

PGD on SEW-ResNet18 (max pooling, 32x32): fastsnn in fp32 and fast against SpikingJelly in the paper's loop and with
frozen weights (baselines.py). At every point all curves take turns and the best of the rounds counts. Beside each PNG
lies a CSV with its numbers, which names machine and versions.
"""

from __future__ import annotations

import argparse
import csv
import functools
import math
import time
from pathlib import Path
from typing import NamedTuple

import torch

import fastsnn
from fastsnn import functional

from .baselines import frozen_pgd, paper_pgd, reset_net, spikingjelly_sew_resnet
from .machine import machine
from .pairs import settle

OURS, FAST, FROZEN, PAPER = (
    "fastsnn, fp32",
    "fastsnn, fast",
    "SpikingJelly, frozen weights",
    "SpikingJelly, paper's loop",
)
COLOURS = {OURS: "#1f5fa8", FAST: "#4fa3d9", FROZEN: "#d9772b", PAPER: "#9c3a1f"}
TYPICAL = {"batch": 16, "steps": 7, "T": 10}  # the paper's
AXES = {
    "batch": ("batch size", (1, 2, 4, 8, 16, 32, 64, 128)),
    "steps": ("PGD steps", (1, 2, 4, 8, 16, 32)),
    "T": ("time steps T", (2, 4, 8, 16, 32)),
}
TINY, FEW = {"batch": 2, "steps": 1, "T": 2}, {"batch": (1, 2), "steps": (1, 2), "T": (2, 4)}  # of a smoke run


class Point(NamedTuple):
    """A measurement: what varied, the size of the attack, whose it is and how long it took."""

    varied: str
    batch: int
    steps: int
    T: int
    curve: str
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images that went through the whole attack, per second."""
        return self.batch / self.seconds


def measure(smoke: bool) -> list[Point]:
    """Time all points of both figures."""
    torch.manual_seed(3407)
    theirs = spikingjelly_sew_resnet(18, "max")
    settle(theirs, functional.phase_encode(torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8), 10))
    reset_net(theirs)
    ours = fastsnn.models.sew_resnet18("max")
    ours.load_state_dict(theirs.state_dict())
    attack = functools.partial(fastsnn.attacks.pgd, ours, random_start=False)
    curves = {
        OURS: attack,
        FROZEN: functools.partial(frozen_pgd, theirs),
        FAST: functools.partial(attack, precision="fast"),
        PAPER: functools.partial(paper_pgd, theirs),
    }
    points = []
    for varied, (_, values) in AXES.items():
        names = tuple(curves) if varied == "batch" else (OURS, FROZEN)
        for value in FEW[varied] if smoke else values:
            size = (TINY if smoke else TYPICAL) | {varied: value}
            seconds = best_of_turns({name: curves[name] for name in names}, **size, budget=0.0 if smoke else 4.0)
            points += [Point(varied, **size, curve=name, seconds=seconds[name]) for name in names]
            told = ", ".join(f"{name} {1e3 * seconds[name]:.0f} ms" for name in names)
            print(f"{varied} = {value}: {told}", flush=True)
    return points


def best_of_turns(curves, *, batch: int, steps: int, T: int, budget: float) -> dict[str, float]:
    """Return the best seconds of each curve: two rounds in turn, and up to six while they fit into the budget."""
    images = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)
    x, y = functional.phase_encode(images, T), torch.randint(0, 10, (batch,))
    best, began = dict.fromkeys(curves, math.inf), time.perf_counter()
    for i in range(6):
        if i >= 2 and time.perf_counter() - began > budget:
            break
        for name, attack in curves.items():
            start = time.perf_counter()
            adv = attack(x, y, eps=6 / 255, alpha=0.01, steps=steps)
            best[name] = min(best[name], time.perf_counter() - start)
            if torch.equal(adv, x) or (adv - x).abs().max() > 6 / 255 + 1e-6:
                raise AssertionError(f"{name} did not attack within its budget: no speed is worth drawing.")
    return best


def write_csv(points: list[Point], path: Path) -> None:
    """Write the numbers, the machine and the versions in the first line."""
    with path.open("w", newline="") as file:
        file.write(f"# PGD on SEW-ResNet18, max pooling, 32x32; best of the rounds in turn. {machine()}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*Point._fields, "images_per_second"])
        for point in points:
            writer.writerow([*point[:-1], f"{point.seconds:.5f}", f"{point.images_per_second:.3f}"])


def draw_cost(points: list[Point], path: Path) -> None:
    """Draw seconds over batch, steps and T, log-log, each beside the straight line through the origin and its end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.0), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(AXES), sharey=True)
    for panel, (varied, (label, _)) in zip(panels, AXES.items(), strict=True):
        for name in (FROZEN, OURS):
            line = _curve(points, varied, name)
            values, seconds = [getattr(point, varied) for point in line], [point.seconds for point in line]
            straight = [seconds[-1] * value / values[-1] for value in values]
            panel.plot(values, straight, "--", color=COLOURS[name], alpha=0.55, linewidth=1.2)
            panel.plot(values, seconds, "o", color=COLOURS[name], markersize=5)
        _logarithmic(panel, values)
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        fixed = ", ".join(f"{name} {getattr(line[0], name)}" for name in AXES if name != varied)
        panel.set_title(fixed, fontsize=10)
        panel.set_xlabel(label, fontsize=11)
    panels[0].set_ylabel("seconds per attack", fontsize=11)
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(low, 1.6 * high)  # room for the upper curve's name
    theirs, ours = (_curve(points, "batch", name) for name in (FROZEN, OURS))
    middle, place = ours[len(ours) // 2], {"textcoords": "offset points", "fontsize": 10}
    where = {"xytext": (4, 8), "ha": "right", "va": "bottom", "color": COLOURS[FROZEN]}
    panels[0].annotate(FROZEN, (theirs[-1].batch, theirs[-1].seconds), **where, **place)
    where = {"xytext": (8, -8), "ha": "left", "va": "top", "color": COLOURS[OURS]}
    panels[0].annotate(OURS, (middle.batch, middle.seconds), **where, **place)
    figure.suptitle("PGD on SEW-ResNet18, 32x32. Dashed: a straight line through the origin", fontsize=12)
    figure.savefig(path)


def draw_throughput(points: list[Point], path: Path) -> None:
    """Draw images per second over the batch size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.4), dpi=150, layout="constrained")
    panel = figure.subplots()
    top = 1.12 * max(point.images_per_second for point in points)
    lines, label = [_curve(points, "batch", name) for name in COLOURS], 0.0
    for line in sorted(lines, key=lambda line: line[-1].images_per_second):
        name, last = line[-1].curve, line[-1]
        values = [point.images_per_second for point in line]
        panel.plot([point.batch for point in line], values, "-o", color=COLOURS[name], markersize=5, linewidth=2)
        label = max(last.images_per_second, label)  # one above the other, a line apart
        place = {"xytext": (10, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
        panel.annotate(f"{name}: {values[-1]:.0f}", (last.batch, label), color=COLOURS[name], fontsize=10, **place)
        label += 0.06 * top
    _logarithmic(panel, [point.batch for point in lines[0]])
    panel.set_ylim(0, top)
    panel.set_xlabel("batch size", fontsize=11)
    panel.set_ylabel("images attacked per second", fontsize=11)
    panel.set_title(f"PGD-{points[0].steps} on SEW-ResNet18, 32x32, T = {points[0].T}", fontsize=12)
    figure.savefig(path)


def _curve(points, varied, name) -> list[Point]:
    return [point for point in points if (point.varied, point.curve) == (varied, name)]


def _logarithmic(panel, ticks) -> None:
    """Make the x axis logarithmic, with the measured values as its ticks; no frame."""
    panel.set_xscale("log", base=2)
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/figures"), help="folder of the PNG and CSV files")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: proves that it runs")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    points = measure(arguments.smoke)
    for name, draw, some in (
        ("cost", draw_cost, [point for point in points if point.curve in (OURS, FROZEN)]),
        ("throughput", draw_throughput, [point for point in points if point.varied == "batch"]),
    ):
        write_csv(some, arguments.out / f"{name}.csv")
        draw(some, arguments.out / f"{name}.png")
        print(f"wrote {arguments.out / name}.png and .csv")


if __name__ == "__main__":
    main()
