"""What G2S leaves right of a digits network, over its budget, steps and chance of a flip where the gradient is zero.

    python -m bench.flips [--pool avg] [--images 40] [--eps 0.005 0.01 0.02 0.05] [--steps 10 25 50]
                          [--gamma 0.01 0.05 0.2]

The network is a sweep's with its default settings, as in bench.strongest. Settings that do not vary are those of the
class G2S. Every image has a generator of its own; the same flips are drawn for all settings.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: a busy machine is slowed by threads that spin

import torch

from fastsnn import attacks
from fastsnn.attacks.rows import rows
from fastsnn.sweep import inputs, networks, plan
from fastsnn.sweep.progress import Lines

from .machine import machine
from .strongest import share


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", default="avg")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--eps", type=float, nargs="+", default=[0.005, 0.01, 0.02, 0.05])
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 25, 50])
    parser.add_argument("--gamma", type=float, nargs="+", default=[0.01, 0.05, 0.2])
    arguments = parser.parse_args()
    settings = plan.Settings(pools=(arguments.pool,))
    (network,) = plan.networks(settings)
    train_set, test_set = (inputs.load(settings, "digits", split) for split in ("train", "test"))
    net, _ = networks.trained(settings, network, train_set, torch.device("cpu"), Lines(), retrain=False)
    test_set = test_set.first(arguments.images)
    x, y = inputs.encoder(settings, network)(test_set.images), test_set.labels
    gradient = torch.autograd.grad(torch.nn.functional.cross_entropy(net(x.requires_grad_()), y), x)[0]
    x = x.detach()
    zero = (rows(gradient, 1) == 0).all(1).float().mean().item()
    print(f"{network}, {len(y)} images, {x.numel() // len(y)} places each; {machine()}")
    print(f"clean {share(net, x, y):.1f} %; gradient zero throughout in {100 * zero:.1f} % of images\n")
    print("| eps | steps | gamma | right % | flips where fooled | s |\n|---|---|---|---|---|---|")
    usual = {"eps": 0.02, "steps": 25, "gamma": 0.05}
    grid = [usual | {name: value} for name in usual for value in getattr(arguments, name)]
    for setting in {tuple(one.values()): one for one in grid}.values():
        generators, start = [torch.Generator().manual_seed(seed) for seed in range(len(y))], time.perf_counter()
        adv = attacks.g2s(net, x, y, generator=generators, **setting)
        flips = rows(adv != x, 1).sum(1)
        mean, seconds = flips[flips > 0].float().mean().item(), time.perf_counter() - start
        values = " | ".join(f"{value:g}" for value in setting.values())
        print(f"| {values} | {share(net, adv, y):.1f} | {mean:.0f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
