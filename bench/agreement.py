"""How far "fp32" and "fast" agree with "reference" on trained networks: spikes of every layer, accuracy under attack.

    python -m bench.agreement [--models sew_resnet18 sew_resnet50] [--json FILE]

Trains SEW-ResNets (width 16) on the digits as `fastsnn sweep` does, or takes its cached weights, and attacks the test
images with FGSM and PGD-7 under every precision, from the same random starts. Prints two tables.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from fastsnn import data
from fastsnn.engine import prepare
from fastsnn.functional import phase_encode
from fastsnn.nn import in_force, precision
from fastsnn.nn.layers import norm_fire, over_time
from fastsnn.sweep import Ledger, networks, plan
from fastsnn.sweep.folder import prepare as prepare_folder
from fastsnn.sweep.folder import sweep
from fastsnn.sweep.machine import describe, versions
from fastsnn.sweep.progress import Silent

PRECISIONS = ("reference", "fp32", "fast")


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
def spikes(net, x, kind: str) -> tuple[float, float]:
    """Return the share of layers' outputs that differ: layer by layer on the same input, and end to end."""
    counted = Spikes(prepare(net))
    with precision("fp32"), in_force.computed_by(counted.beside):
        net(x)
    alone = counted.share()
    with precision(kind), in_force.computed_by(counted.end_to_end):
        net(x)
    return alone, counted.share()


def attacked(settings: plan.Settings, folder: Path) -> dict[tuple, float]:
    """Run a sweep in a folder of its own; return accuracy in % by model, pool, attack and eps."""
    prepare_folder(settings, folder)
    for _ in sweep(settings, folder, Silent()):
        pass
    with Ledger.read(folder) as ledger:
        rows = ledger.results()
    return {(row["model"], row["pool"], row["attack"], row["eps_255"]): row["accuracy"] for row in rows}


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser("python -m bench.agreement", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["sew_resnet18", "sew_resnet50"])
    parser.add_argument("--width", type=int, default=16, help="planes of the networks' stem")
    parser.add_argument("--epochs", type=int, default=plan.Settings.epochs, help="of training")
    parser.add_argument("--images", type=int, default=None, help="test images, from the first; default all 360")
    parser.add_argument("--json", type=Path, default=None, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    how = {"models": tuple(options.models), "width": options.width, "epochs": options.epochs, "images": options.images}
    settings = {kind: plan.Settings(**how, precision=kind, device="cpu") for kind in PRECISIONS}
    accuracy, records = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for kind in PRECISIONS:
            began = time.perf_counter()
            accuracy[kind] = attacked(settings[kind], Path(folder) / kind)
            print(f"{kind}: {time.perf_counter() - began:.0f} s", flush=True)
    train_set, test_set = data.load("digits", "train"), data.load("digits", "test")
    one = settings["fp32"]
    x = phase_encode(test_set.images[:60], one.T, one.K)
    print("\nShare of layers' outputs that differ from plain modules'")
    print(f"{'network':<18} {'layer by layer, fp32':>21} {'end to end, fp32':>17} {'end to end, fast':>17}")
    for network in plan.networks(one):
        net, _ = networks.trained(one, network, train_set, torch.device("cpu"), Silent(), retrain=False)
        net.requires_grad_(False)
        (alone, fp32), (_, fast) = (spikes(net, x, kind) for kind in ("fp32", "fast"))
        print(f"{network.model[4:] + ' ' + network.pool:<18} {alone:>21.2e} {fp32:>17.2e} {fast:>17.2e}", flush=True)
        records.append({"model": network.model, "pool": network.pool, "layer": alone, "fp32": fp32, "fast": fast})
    print("\nAccuracy (%) under attack, on the same random starts")
    print(f"{'network':<18} {'attack':<7}{'eps':>4} " + "".join(f"{kind:>11}" for kind in PRECISIONS))
    for cell in accuracy["reference"]:
        model, pool, attack, eps = cell
        values = [accuracy[kind][cell] for kind in PRECISIONS]
        print(f"{model[4:] + ' ' + pool:<18} {attack:<7}{eps:>4g} " + "".join(f"{value:>11.2f}" for value in values))
        about = {"model": model, "pool": pool, "attack": attack, "eps_255": eps}
        records.append(about | dict(zip(PRECISIONS, values, strict=True)))
    for kind in PRECISIONS[1:]:
        furthest = max(abs(accuracy[kind][cell] - value) for cell, value in accuracy["reference"].items())
        print(f"furthest {kind} is from reference: {furthest:.2f} points")
    if options.json:
        about = {"machine": describe(), "versions": versions(), "rows": records}
        options.json.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
