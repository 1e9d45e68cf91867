"""What an attack costs beside the gradients (or logits) that it asks for: checks, starts, steps, projections, books.

    python -m bench.attack_logic [--depth 18] [--width 64] [--batch 16] [--steps 7] [--rounds 3]

A clock stands around every look at the network; what is left of the attack's time is its own. The goal is 3 %. Seconds
are the processor's, of all threads, so that a busy machine does not blur them.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that wait should not count

import torch

import fastsnn
from fastsnn import attacks, functional
from fastsnn.attacks.gradient import InputGradient

from .machine import machine
from .pairs import settle

LOOKS = ("look", "logits")


class Clock:
    """Seconds of the processor spent in looks at the network, while it is held as a context."""

    def __init__(self):
        self.seconds, self._own = 0.0, {name: getattr(InputGradient, name) for name in LOOKS}

    def __enter__(self):
        for name, own in self._own.items():
            setattr(InputGradient, name, self._around(own))
        return self

    def __exit__(self, *_):
        for name, own in self._own.items():
            setattr(InputGradient, name, own)

    def _around(self, look):
        def timed(gradient, *arguments):
            start = time.process_time()
            out = look(gradient, *arguments)
            self.seconds += time.process_time() - start
            return out

        return timed


def share(attack, x, y, rounds):
    """Return seconds of an attack, and the share of them that is its own: of the round where that is least."""
    found = []
    for _ in range(rounds + 1):  # the first one prepares layers
        with Clock() as clock:
            start = time.process_time()
            attack(x, y)
            total = time.process_time() - start
        found.append((1 - clock.seconds / total, total))
    least, total = min(found[1:])
    return total, least


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("depth", 18), ("width", 64), ("batch", 16), ("steps", 7), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    net = fastsnn.models.BUILDERS[f"sew_resnet{arguments.depth}"](width=arguments.width)
    images = torch.randint(0, 256, (arguments.batch, 3, 32, 32), dtype=torch.uint8)
    x = functional.phase_encode(images, T=10)
    settle(net, x)
    with torch.no_grad():
        y = net(x).argmax(1)
    how = {"eps": 6 / 255, "alpha": 0.01, "steps": arguments.steps}
    auto = {"eps": 1e-4, "steps": arguments.steps}  # so small that all samples stay to the end
    made = {
        "FGSM": attacks.FGSM(net, eps=6 / 255),
        "PGD": attacks.PGD(net, **how),
        "PGD, l2": attacks.PGD(net, norm="l2", **how),
        "PGD, l1": attacks.PGD(net, norm="l1", **how),
        "MIM": attacks.MIM(net, **how),
        "APGD": attacks.APGD(net, **auto),
        "APGD, l2": attacks.APGD(net, norm="l2", **auto),
        "APGDT, 2 targets": attacks.APGDT(net, targets=2, **auto),
        "Square": attacks.Square(net, eps=1e-4, n_queries=2 * arguments.steps),
    }
    sizes = f"SEW-ResNet{arguments.depth}, width {arguments.width}, batch {arguments.batch}, T=10, 32x32"
    print(f"{sizes}, {arguments.steps} steps; {machine()}\n")
    print("| attack | CPU seconds | its own |\n|---|---|---|")
    for name, attack in made.items():
        total, own = share(attack, x, y, arguments.rounds)
        print(f"| {name} | {total:.3f} | {100 * own:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
