"""What it brings to replay the steps of PGD on a CPU rather than to run them through Python and autograd.

    python -m bench.recorded [--batches 1 4 16 64 128] [--rounds 5]

PGD with 7 steps on SEW-ResNet18 with average pooling, T = 10, 32x32: `graph=None` and "auto" in turn, best of the
rounds, after the attack that records; first it is checked that both give the same bits.
"""

from __future__ import annotations

import argparse
import time

import torch

import fastsnn
from fastsnn import functional
from fastsnn.attacks.recordings import of_networks

from .machine import machine
from .pairs import settle

COLUMNS = ((64, {}), (64, {"precision": "fast"}), (16, {}), (64, {"bn": "drift"}), (16, {"bn": "drift"}))


def measure(net, x, y, rounds: int, how: dict) -> dict[str | None, float]:
    """Return the least seconds of an attack without and with recorded steps."""
    before = [(buffer, buffer.clone()) for buffer in net.buffers()]

    def attack(graph):
        for buffer, value in before if "bn" in how else ():  # which drift
            buffer.copy_(value)
        return fastsnn.attacks.pgd(net, x, y, eps=6 / 255, alpha=0.01, steps=7, random_start=False, graph=graph, **how)

    expected = attack(None)
    assert all(torch.equal(attack("auto"), expected) for _ in range(3)), "a replay has other bits"
    assert of_networks[net].kept, "nothing was recorded"
    best = {None: float("inf"), "auto": float("inf")}
    for _ in range(rounds):
        for graph in best:
            start = time.perf_counter()
            attack(graph)
            best[graph] = min(best[graph], time.perf_counter() - start)
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64, 128])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    names = [f"width {width}, {', '.join(how.values()) or 'fp32'}" for width, how in COLUMNS]
    print(f"ms of an attack without and with recorded steps; {machine()}\n")
    print(f"| batch | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for batch in arguments.batches:
        images = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)
        x, y, cells = functional.phase_encode(images, T=10), torch.randint(0, 10, (batch,)), []
        for width, how in COLUMNS:
            torch.manual_seed(0)
            net = fastsnn.models.sew_resnet18("avg", width=width)
            settle(net, x)
            without, replayed = (1e3 * seconds for seconds in measure(net, x, y, arguments.rounds, how).values())
            cells.append(f"{without:.0f}, {replayed:.0f}: {without / replayed:.2f}x")
        print(f"| {batch} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
