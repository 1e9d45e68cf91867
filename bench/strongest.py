"""What each attack leaves right of a digits network, alone, and what each adds when all are combined.

    python -m bench.strongest [--pools max avg] [--defence none snn_rat] [--images 40] [--eps 6] [--steps 50]
                             [--queries 500] [--only PGD SA]

The networks are a sweep's with its default settings (SEW-ResNet18 of width 16, phase code), from its cached weights or
trained now, one for each pooling and defence. The encoded input is attacked, eps is in 1/255, every image has a
generator of its own.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: a busy machine is slowed by threads that spin

import torch

from fastsnn import attacks
from fastsnn.sweep import inputs, networks, plan
from fastsnn.sweep.progress import Lines

from .machine import machine


def alone(net, eps, steps, queries, generators):
    """Return name and function from x and y to adversarial input of every attack."""
    paper = {"eps": eps, "alpha": 0.01, "steps": 7}
    seeded = {"eps": eps, "generator": generators}
    named = {
        "FGSM": attacks.FGSM(net, eps=eps),
        "PGD, 7 steps of 0.01 (the paper's)": attacks.PGD(net, **paper, generator=generators),
        f"PGD, {steps} steps of 0.01": attacks.PGD(net, **paper | {"steps": steps}, generator=generators),
        "MIM, 7 steps of 0.01": attacks.MIM(net, **paper),
        f"APGD-ce, {steps} steps": attacks.APGD(net, steps=steps, **seeded),
        f"APGD-dlr, {steps} steps": attacks.APGD(net, steps=steps, loss="dlr", **seeded),
        f"SA-PGD, {steps} steps": attacks.SAPGD(net, steps=steps, surrogate=None, **seeded),
    }
    for rule in ("bptr", "rga", "hart", "pdsg", "assg"):
        named[f"APGD-ce, {steps} steps, {rule.upper()}"] = attacks.APGD(net, steps=steps, surrogate=rule, **seeded)
    named[f"SA-PGD, {steps} steps, ASSG"] = attacks.SAPGD(net, steps=steps, **seeded)
    for attack in ("fgsm", "pgd", "apgd"):
        named[f"ensemble of 18 surrogates, {attack}, 10 steps"] = attacks.Ensemble(
            net, alpha=2.5 * eps / 10, attacks=(attack,), **seeded
        )
    named[f"Square, {queries} queries"] = attacks.Square(net, n_queries=queries, **seeded)
    named["Strongest, all together"] = attacks.Strongest(net, steps=steps, n_queries=queries, **seeded)
    return named


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", nargs="+", default=["max", "avg"])
    parser.add_argument("--defence", nargs="+", default=["none"], help="how networks are trained, as in a sweep")
    parser.add_argument("--eps", type=float, default=6)
    for name, default in (("images", 40), ("steps", 50), ("queries", 500)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", nargs="+", default=[""], help="attacks whose name begins with one of these")
    arguments = parser.parse_args()
    print(machine())
    settings = plan.Settings(pools=tuple(arguments.pools), defences=tuple(arguments.defence))
    device = torch.device("cpu")
    train_set, test_set = (inputs.load(settings, "digits", split) for split in ("train", "test"))
    test_set = test_set.first(arguments.images)
    for network in plan.networks(settings):
        net, _ = networks.trained(settings, network, train_set, device, Lines(), retrain=False)
        x, y = inputs.encoder(settings, network)(test_set.images), test_set.labels
        print(f"\n{network}, {len(y)} images, eps {arguments.eps:g}/255 in encoded space")
        print(f"{'clean':45}{share(net, x, y):7.1f} %", flush=True)
        seeds = range(len(y))
        generators = [torch.Generator() for _ in seeds]
        named = alone(net, arguments.eps / 255, arguments.steps, arguments.queries, generators)
        for name, attack in named.items():
            if not name.startswith(tuple(arguments.only)):
                continue
            for seed, generator in zip(seeds, generators, strict=True):
                generator.manual_seed(seed)
            start = time.perf_counter()
            right = share(net, attack(x, y), y)
            print(f"{name:45}{right:7.1f} %{time.perf_counter() - start:8.1f} s", flush=True)
            if isinstance(attack, attacks.Strongest):
                print(attack.table.by_attack(), attack.table, sep="\n")


@torch.no_grad()
def share(net, x, y):
    """Return how many percent are right."""
    return 100 * (net(x).argmax(1) == y).float().mean().item()


if __name__ == "__main__":
    main()
