"""How far "fp32" and "fast" agree with "reference" on trained networks: spikes of every layer, accuracy under attack.

    python -m bench.agreement [--models sew_resnet18 sew_resnet50] [--seeds 3407] [--starts 5] [--json FILE]
    python -m bench.agreement --read FILE [FILE ...]

Trains SEW-ResNets (width 16) on the digits as `fastsnn sweep` does, or takes its cached weights, and attacks the test
images with FGSM and PGD-7 under every precision, from the same random starts, several times. Prints two tables: one
differing spike sends the rest of a sample's PGD another way, as another random start does, so that what a precision
changes is the mean over starts and networks, and how far runs are apart says what a difference is worth.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch

import fastsnn
from fastsnn import data
from fastsnn.engine import prepare
from fastsnn.functional import phase_encode
from fastsnn.nn import in_force, precision
from fastsnn.nn.layers import norm_fire, over_time
from fastsnn.sweep import networks, plan
from fastsnn.sweep.machine import describe, versions
from fastsnn.sweep.progress import Silent

PRECISIONS = ("reference", "fp32", "fast")
EPS = (0, 2, 4, 6, 8, 16)  # /255, those of `fastsnn sweep`
BATCH = 60


class Spikes:
    """Counts the outputs of layers that differ from those of plain modules in SpikingJelly's order of operations."""

    def __init__(self, prepared):
        self.prepared, self.differ, self.total, self.recorded = prepared, 0, 0, []

    def beside(self, conv, norm, neuron, x_seq, residual, junction, dtype):
        """Compute a layer both ways from the plain one's input, and go on with the plain output."""
        plain = self.plain(conv, norm, neuron, x_seq, residual, junction, dtype)
        self._count(self.prepared._compute(conv, norm, neuron, x_seq, residual, junction, dtype), plain)
        return plain

    def plain(self, conv, norm, neuron, x_seq, residual, junction, dtype):
        """Compute a layer by its modules, and record the output."""
        with precision("reference"):
            plain = norm_fire(norm, neuron, over_time(conv, x_seq.float()), residual, junction)
        self.recorded.append(plain)
        return plain

    def end_to_end(self, *layer):
        """Compute a layer as prepared, from what came before it, and compare it with what was recorded."""
        out = self.prepared._compute(*layer)
        self._count(out, self.recorded.pop(0))
        return out

    def share(self) -> float:
        """Return the share that differed since the last call."""
        share, self.differ, self.total = self.differ / self.total, 0, 0
        return share

    def _count(self, ours, theirs):
        self.differ += int((ours != theirs).sum())
        self.total += theirs.numel()


@torch.no_grad()
def spikes(net, x, kind: str, alone_kind: str = "fp32") -> tuple[float, float]:
    """Return the share of layers' outputs that differ: layer by layer on the same input, and end to end."""
    counted = Spikes(prepare(net))
    with precision(alone_kind), in_force.computed_by(counted.beside):
        net(x)
    alone = counted.share()
    with precision(kind), in_force.computed_by(counted.end_to_end):
        net(x)
    return alone, counted.share()


def accuracies(net, x, y, kind: str, starts: int) -> dict[tuple[str, int], list[float]]:
    """Return the accuracy in % from each random start, by attack and eps; FGSM has one start, the input itself."""
    how, budgets = {"eps": [eps / 255 for eps in EPS], "precision": kind}, {"alpha": 0.01, "steps": 7}
    right = {("fgsm", eps): [0] for eps in EPS} | {("pgd", eps): [0] * starts for eps in EPS}
    for some in torch.arange(y.numel()).split(BATCH):
        inputs, labels = x[:, some], y[some]
        for start in range(starts):
            draws = [torch.Generator().manual_seed(start * y.numel() + int(image)) for image in some]
            found = {"pgd": fastsnn.attacks.pgd(net, inputs, labels, generator=draws, **how, **budgets)}
            if start == 0:
                found["fgsm"] = fastsnn.attacks.fgsm(net, inputs, labels, **how)
            for attack, budgets_found in found.items():
                for eps, adv in zip(EPS, budgets_found, strict=True):
                    with torch.no_grad(), precision(kind):
                        right[attack, eps][start] += int((net(adv).argmax(1) == labels).sum())
    return {cell: [100 * count / y.numel() for count in counts] for cell, counts in right.items()}


def network_rows(net, about: dict, x, y, starts: int) -> list[dict]:
    """Return what is found of one network: its spikes, then for every attack and eps each precision's accuracies."""
    cells = {}
    for kind in PRECISIONS:
        began = time.perf_counter()
        for (attack, eps), runs in accuracies(net, x, y, kind, starts).items():
            cells.setdefault((attack, eps), about | {"attack": attack, "eps_255": eps})[kind] = runs
        print(f"{', '.join(map(str, about.values()))}, {kind}: {time.perf_counter() - began:.0f} s", flush=True)
    net.requires_grad_(False)
    (alone, fp32), (_, fast) = (spikes(net, x[:, :BATCH], kind) for kind in ("fp32", "fast"))
    return [about | {"layer": alone, "fp32": fp32, "fast": fast}, *cells.values()]


def mean(values: list[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def apart(networks: list[dict], kind: str) -> tuple[float, float]:
    """Return the mean difference to "reference" of the rows of several networks, and its standard error.

    Starts of one network are not independent: the error is that of the networks' means. Of one network alone it is that
    of its starts, and NaN where it has one.
    """
    runs = [[one - other for one, other in zip(row[kind], row["reference"], strict=True)] for row in networks]
    means = [mean(differences) for differences in runs]
    each = means if len(networks) > 1 else runs[0]
    n, middle = len(each), mean(each)
    error = math.sqrt(sum((one - middle) ** 2 for one in each) / (n - 1) / n) if n > 1 else math.nan
    return middle, error


def show(rows: list[dict]) -> None:
    """Print the tables of all networks' rows."""
    print("\nShare of layers' outputs that differ from plain modules'")
    print(f"{'network':<18} {'layer by layer, fp32':>21} {'end to end, fp32':>17} {'end to end, fast':>17}")
    cells, seen = {}, set()
    for row in rows:
        if "attack" in row:
            cells.setdefault((*_kind(row), row["attack"], row["eps_255"]), []).append(row)
        else:
            if (*_kind(row), row["seed"]) in seen:
                raise ValueError(f"{_name(row)} with seed {row['seed']} is there twice; expected every network once.")
            seen.add((*_kind(row), row["seed"]))
            print(f"{_name(row):<18} {row['layer']:>21.2e} {row['fp32']:>17.2e} {row['fast']:>17.2e}")
    print("\nAccuracy (%) under attack, mean over n networks and their starts; distance to reference +- standard error")
    head = "".join(f"{kind:>20}" for kind in PRECISIONS[1:])
    print(f"{'network':<18} {'n':>2} {'attack':<5}{'eps':>3} {'reference':>10}{head}{'runs: least, most':>21}")
    furthest = dict.fromkeys(PRECISIONS[1:], (0.0, math.nan))
    for (*_, attack, eps), group in cells.items():
        name, values = _name(group[0]), ""
        for kind in furthest:
            away, error = found = apart(group, kind)
            furthest[kind] = max(furthest[kind], found, key=lambda one: abs(one[0]))
            value = mean([mean(row[kind]) for row in group])
            values += f"{value:>9.2f}{away:>+6.2f} {_plus_minus(error):<7}"
        runs = [run for row in group for run in row["reference"]]
        middle, span = mean([mean(row["reference"]) for row in group]), f"{min(runs):>13.2f} {max(runs):>7.2f}"
        print(f"{name:<18} {len(group):>2} {attack:<5}{eps:>3g} {middle:>10.2f}{values}{span}")
    for kind, (away, error) in furthest.items():
        print(f"furthest {kind} is from reference: {away:+.2f} {_plus_minus(error)}".rstrip() + " points")


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser("python -m bench.agreement", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["sew_resnet18", "sew_resnet50"])
    parser.add_argument("--pools", nargs="+", default=["max", "avg"])
    parser.add_argument("--width", type=int, default=16, help="planes of the networks' stem")
    parser.add_argument("--epochs", type=int, default=plan.Settings.epochs, help="of training")
    parser.add_argument("--images", type=int, default=None, help="test images, from the first; default all 360")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3407], help="a network is trained for each")
    parser.add_argument("--starts", type=int, default=5, help="random starts of PGD, whose accuracies are averaged")
    parser.add_argument("--json", type=Path, default=None, help="write the numbers to this file too")
    parser.add_argument("--read", type=Path, nargs="+", default=None, help="print the tables of these files instead")
    options = parser.parse_args(arguments)
    if options.read:
        show([row for file in options.read for row in json.loads(file.read_text())["rows"]])
        return
    settings = plan.Settings(
        seeds=tuple(options.seeds),
        models=tuple(options.models),
        pools=tuple(options.pools),
        width=options.width,
        epochs=options.epochs,
        images=options.images,
        device="cpu",
    )
    train_set, test_set = data.load("digits", "train"), data.load("digits", "test")
    x = phase_encode(test_set.images[: options.images], settings.T, settings.K)
    y = test_set.labels[: options.images]
    rows = []
    for network in plan.networks(settings):
        net, _ = networks.trained(settings, network, train_set, torch.device("cpu"), Silent(), retrain=False)
        about = {"model": network.model, "pool": network.pool, "width": options.width, "epochs": options.epochs}
        about |= {"images": y.numel(), "seed": network.seed}
        rows += network_rows(net, about, x, y, options.starts)
        if options.json:
            found = {"machine": describe(), "versions": versions(), "rows": rows}
            options.json.write_text(json.dumps(found, indent=1) + "\n")
    show(rows)


def _plus_minus(error: float) -> str:
    """Return an error for a table; nothing of a single run, which has none."""
    return "" if math.isnan(error) else f"+-{error:.2f}"


def _kind(row: dict) -> tuple:
    """Return what networks have in common whose rows are averaged."""
    return tuple(row[name] for name in ("model", "pool", "width", "epochs", "images"))


def _name(row: dict) -> str:
    return f"{row['model'].removeprefix('sew_')} {row['pool']}"


if __name__ == "__main__":
    main()
