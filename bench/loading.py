"""Whether loading and coding images keep an attack waiting: images/s of each, beside images/s of a step of PGD.

    python -m bench.loading [--data digits] [--root FOLDER] [--batch 60] [--width 64] [--rounds 5]

"load" is data.load of the whole test set, checksums included: the first call, packages imported, and later ones, for
which frames of events are cached. "batch" is a random choice of images as training makes it, "code" what an encoder
makes of it. A step is a gradient and a projection of SEW-ResNet18, T = 10, on the first coding's input; an attack makes
several of them on an image that is coded once. The best of the rounds in turn. All run on the CPU.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable

import torch

from fastsnn import attacks, data, models, nn

from .machine import machine

T = 10


Works = dict[str, tuple[int, Callable[[], object]]]  # by name: how many images it deals with, and what does it


def works(test_set: data.Dataset, root: str | None, batch: int, width: int) -> Works:
    """Return what is timed."""
    name = test_set.name
    batch = min(batch, len(test_set))
    chosen = torch.randperm(len(test_set), generator=torch.Generator().manual_seed(0))[:batch]
    images, y = test_set.images[chosen], test_set.labels[chosen]
    encoders = {"events": nn.EventFrames(T)} if name in data.EVENTS else {c: kind(T) for c, kind in nn.ENCODERS.items()}
    found = {
        "load again": (len(test_set), lambda: data.load(name, "test", root, T=T)),
        "batch": (batch, lambda: test_set.images[chosen]),
    }
    found |= {f"code: {coding}": (batch, lambda encode=encode: encode(images)) for coding, encode in encoders.items()}
    x = next(iter(encoders.values()))(images)
    torch.manual_seed(3407)
    net = models.sew_resnet18(num_classes=test_set.num_classes, width=width, in_channels=x.shape[2])
    with torch.no_grad():
        net.train()(x)  # settles the running statistics, so that neurons fire as they do in earnest
    net.eval()
    how = {"eps": 6 / 255, "alpha": 0.01, "random_start": False}
    found["a step of PGD"] = (batch, lambda: attacks.pgd(net, x, y, steps=1, **how))
    return found


def images_per_second(timed: Works, rounds: int) -> dict[str, float]:
    """Return the best of the rounds, after one to warm up."""
    best = dict.fromkeys(timed, math.inf)
    for i, (name, (_, work)) in itertools.product(range(rounds + 1), timed.items()):
        start = time.perf_counter()
        work()
        if i:
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: images / best[name] for name, (images, _) in timed.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", choices=data.DATASETS)
    parser.add_argument("--root", metavar="FOLDER", help="that has the files of the data set, see data.load")
    parser.add_argument("--batch", type=int, default=60, help="images, at least 1")
    parser.add_argument("--width", type=int, default=64, help="planes of the network's first stage, at least 1")
    parser.add_argument("--rounds", type=int, default=5, help="the best of so many is shown, at least 1")
    arguments = parser.parse_args()
    for name in ("batch", "rounds"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} is {getattr(arguments, name)}, expected at least 1")
    start = time.perf_counter()
    test_set = data.load(arguments.data, "test", arguments.root, T=T)
    speeds = {"load": len(test_set) / (time.perf_counter() - start)}
    timed = works(test_set, arguments.root, arguments.batch, arguments.width)
    speeds |= images_per_second(timed, arguments.rounds)
    step = speeds["a step of PGD"]
    shape = f"batch {timed['batch'][0]}, SEW-ResNet18 of width {arguments.width}, T = {T}"
    print(f"{arguments.data}: images/s, and over those of a step of PGD; {shape}\n{machine()}")
    for name, speed in speeds.items():
        print(f"{name:<16}{speed:>14,.0f}{speed / step:>12,.1f}x")


if __name__ == "__main__":
    main()
