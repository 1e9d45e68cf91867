"""What an attack costs beside the gradients (or logits) that it asks for: checks, starts, steps, projections, books.

    python -m bench.attack_logic [--depth 18] [--width 64] [--batch 16] [--steps 7] [--rounds 9]

A clock stands around every look at the network; what is left of the attack's time is its own. The goal is 3 %. Both are
the least of all rounds, by the clock on the wall: what one thread does while others wait counts in full. Of a replayed
step, the attack's own is its kernel "attack_step"; of a replayed look, all around the replay.
"""

from __future__ import annotations

import argparse
import time

import torch

import fastsnn
from fastsnn import attacks, functional
from fastsnn.attacks.gradient import InputGradient
from fastsnn.ops import library
from fastsnn.ops.tape import Tape

from .machine import machine
from .pairs import settle

LOOKS = ("look", "logits")


class Clock:
    """Seconds spent in looks at the network, while it is held as a context."""

    def __init__(self):
        self.seconds, self._own = 0.0, {name: getattr(InputGradient, name) for name in LOOKS}
        self._play = Tape.play

    def __enter__(self):
        Tape.play = lambda tape: self._replayed(tape)
        for name, own in self._own.items():
            setattr(InputGradient, name, self._around(own))
        return self

    def __exit__(self, *_):
        Tape.play = self._play
        for name, own in self._own.items():
            setattr(InputGradient, name, own)

    def _replayed(self, tape):
        with torch._C.DisableTorchFunction(), torch.no_grad():
            start = time.perf_counter()
            for call, arguments in tape._calls:
                own = call is library.call and arguments[0] == "attack_step"
                if own:
                    self.seconds += time.perf_counter() - start
                call(*arguments)
                if own:
                    start = time.perf_counter()
            self.seconds += time.perf_counter() - start

    def _around(self, look):
        def timed(gradient, *arguments):
            start, before = time.perf_counter(), self.seconds
            out = look(gradient, *arguments)
            if self.seconds == before:  # else it was replayed, and what is beside that is the attack's
                self.seconds += time.perf_counter() - start
            return out

        return timed


def seconds(attack, x, y, rounds):
    """Return the least seconds of an attack's looks at the network, and of all the rest of it."""
    looks, own = [], []
    with Clock() as clock:
        for _ in range(rounds + 3):  # the first prepares layers, the second or third records a pass
            clock.seconds, start = 0.0, time.perf_counter()
            attack(x, y)
            looks.append(clock.seconds)
            own.append(time.perf_counter() - start - clock.seconds)
    return min(looks[3:]), min(own[3:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("depth", 18), ("width", 64), ("batch", 16), ("steps", 7), ("rounds", 9)):
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
    print("| attack | its looks, ms | its own, ms | share |\n|---|---|---|---|")
    for name, attack in made.items():
        looks, own = seconds(attack, x, y, arguments.rounds)
        print(f"| {name} | {1e3 * looks:.0f} | {1e3 * own:.1f} | {100 * own / (looks + own):.1f} % |", flush=True)


if __name__ == "__main__":
    main()
