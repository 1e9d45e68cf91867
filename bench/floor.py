"""Where a PGD step spends its time, and how far it is from its floor: the bare products in the forms chosen.

    python -m bench.floor [--depths 18 50] [--pool max] [--precision fp32] [--rounds 10] [--layers]

Clocks stand around every part of a step: products, neurons (with batch norm and junction), pools, the attack's own
step. What is left is Python and autograd, the sums of shortcuts' gradients, the head and the loss. Replayed, as attacks
do it from their second batch on, a step is rid of the first two. The floor comes from
`prepare(...).explain()`: each product alone, on frames that are in the cache if they fit. `--layers` prints it too.
"""

from __future__ import annotations

import argparse
import collections
import functools
import time
import timeit

import torch
from torch.nn.functional import cross_entropy

import fastsnn
from fastsnn import functional
from fastsnn.engine import prepare
from fastsnn.engine.under_attack import under_attack
from fastsnn.nn import precision
from fastsnn.ops import attack_step, tape

from .machine import machine
from .pairs import settle

PARTS = (
    "products, forward",
    "products, input gradient",
    "neurons, forward",
    "neurons, gradient",
    "pools",
    "attack step",
)


class Clocks:
    """Seconds by part; `around` puts a clock around a function, `on` around a module, forward and gradient."""

    def __init__(self):
        self.seconds = collections.Counter()

    def around(self, part, function):
        """Return a function that does the same, and whose time goes to `part`."""

        def timed(*arguments):
            start = time.perf_counter()
            out = function(*arguments)
            self.seconds[part] += time.perf_counter() - start
            return out

        return timed

    def on(self, part, module):
        """Time a module that is one node of autograd."""
        forward, began = self.around(part, module.forward), []

        def both(x):
            out = forward(x)
            out.grad_fn.register_prehook(lambda _: began.append(time.perf_counter()))
            out.grad_fn.register_hook(lambda *_: self.seconds.update({part: time.perf_counter() - began.pop()}))
            return out

        module.forward = both

    def layers(self, prepared):
        """Put clocks around the products and neurons of all layers that have been chosen."""
        for chosen in prepared._chosen.values():
            (layer,), form = chosen.layers.values(), chosen.form
            form.forward = self.around("products, forward", form.forward)
            form.backward = self.around("products, input gradient", form.backward)
            layer.fire = self.around("neurons, forward", layer.fire)
            layer.unfire = self.around("neurons, gradient", layer.unfire)


def measure(depth: int, pool: str, kind: str, rounds: int):
    """Return milliseconds of a step (the best round), of its parts in that round, replayed, and the explanation."""
    torch.manual_seed(3407)
    net = getattr(fastsnn.models, f"sew_resnet{depth}")(pool)
    x = functional.phase_encode(torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8))
    y = torch.randint(0, 10, (16,))
    settle(net, x)
    prepared, clocks, adv = prepare(net), Clocks(), x
    ascend = clocks.around("attack step", functools.partial(attack_step.step, batch_axis=1, exact=False))
    eps, alpha = torch.full((16,), 6 / 255), torch.full((16,), 0.01)
    best = (float("inf"), {})

    def step(adv):
        leaf = adv.detach().requires_grad_()
        loss = cross_entropy(prepared(leaf), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        return ascend(leaf.detach(), x, gradient, eps, alpha)

    with under_attack(net, "frozen"), precision(kind):
        for i in range(rounds + 1):
            clocks.seconds.clear()
            start = time.perf_counter()
            adv = step(adv)
            seconds = time.perf_counter() - start
            if i == 0:  # now all layers have been chosen
                clocks.layers(prepared)
                clocks.on("pools", net.maxpool)
                clocks.on("pools", net.avgpool)
            elif seconds < best[0]:
                best = seconds, dict(clocks.seconds)
        recorded = tape.record(lambda: adv.copy_(step(adv)))
        replayed = min(timeit.repeat(recorded.play, number=1, repeat=rounds))
    parts = {part: 1e3 * best[1][part] for part in PARTS}
    parts["rest"] = 1e3 * best[0] - sum(parts.values())
    return 1e3 * best[0], parts, 1e3 * replayed, prepared.explain()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", nargs="+", type=int, default=[18, 50])
    parser.add_argument("--pool", default="max", choices=("max", "avg"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "fast"))
    parser.add_argument("--rounds", type=int, default=10, help="the best of so many is shown, at least 1")
    parser.add_argument("--layers", action="store_true", help="print the form and the time of every product")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds is {arguments.rounds}, expected at least 1")
    how = (arguments.pool, arguments.precision, arguments.rounds)
    found = {depth: measure(depth, *how) for depth in arguments.depths}
    print(f"One step of PGD, batch 16, T = 10, 32x32, {how[0]} pooling, {how[1]}: ms and share.\n{machine()}")
    print(f"{'':<42}" + "".join(f"{f'SEW-ResNet{depth}':>18}" for depth in found))
    floors = {depth: sum(layer.milliseconds for layer in layers) for depth, (*_, layers) in found.items()}
    lines = {part: {depth: parts[part] for depth, (_, parts, *_) in found.items()} for part in (*PARTS, "rest")}
    lines["rest (Python, autograd, sums, head, loss)"] = lines.pop("rest")
    lines["total"] = {depth: total for depth, (total, *_) in found.items()}
    lines["replayed"] = {depth: replayed for depth, (_, _, replayed, _) in found.items()}
    lines["the floor: all products alone (explain)"] = floors
    for name, values in lines.items():
        print(f"{name:<42}" + "".join(f"{ms:>11.2f} {ms / found[depth][0]:>5.0%} " for depth, ms in values.items()))
    ratios = "".join(f"{replayed / floors[depth]:>10.2f}x       " for depth, (_, _, replayed, _) in found.items())
    print(f"{'replayed over the floor':<42}{ratios}".rstrip())
    if arguments.layers:
        for depth, (*_, layers) in found.items():
            print(f"\nSEW-ResNet{depth}\n{layers}")


if __name__ == "__main__":
    main()
