"""What it costs to count gradients in the kernels while an attack runs: analysis.gradient_sparsity(engine="auto").

    python -m bench.counting [--depth 18] [--widths 64 16] [--threads 1 2] [--batch 60] [--batches 6] [--rounds 5]

PGD with 7 steps on a stream of batches, alone and counted, in turn on the same new networks: the least seconds of a
whole stream (its first batch runs as it is, its second is recorded), of the same without recordings (as other attacks
are), and of one replayed step. By default it is as many batches and images as `fastsnn sparsity` takes of the digits.
First it is checked that what was counted over replayed steps is what is counted over steps as they are. The goal: 5 %.
"""

from __future__ import annotations

import argparse
import time

import torch

import fastsnn
from fastsnn import functional
from fastsnn.analysis import gradient_sparsity
from fastsnn.analysis.watching import watching
from fastsnn.attacks import PGD, graph

from .machine import machine
from .pairs import settle

HOW = {"eps": 6 / 255, "alpha": 0.01, "steps": 7, "random_start": False}


def stream(depth: int, pool: str, width: int, batch: int, batches: int):
    """Return a new network, settled, and batches of noise images with labels."""
    torch.manual_seed(0)
    net = getattr(fastsnn.models, f"sew_resnet{depth}")(pool, width=width)
    images = torch.randint(0, 256, (batches, batch, 3, 32, 32), dtype=torch.uint8)
    parts = [(functional.phase_encode(some, T=10), torch.randint(0, 10, (batch,))) for some in images]
    settle(net, parts[0][0])
    return net, parts


def alone(net, parts, **how):
    """Attack every batch."""
    attack = PGD(net, **HOW | how)
    for x, y in parts:
        attack(x, y)


def counted(net, parts, **how):
    """Attack every batch, and count."""
    return gradient_sparsity(net, parts, attack=PGD(net, **HOW | how), underflow=False, engine="auto", per_step=True)


def check(net, parts):
    """Compare what was counted over replayed steps with what is over steps as they are."""
    found, expected = counted(net, parts), counted(net, parts, graph=None)
    assert [tuple(map(repr, row)) for row in found] == [tuple(map(repr, row)) for row in expected]
    assert found.passes == expected.passes == HOW["steps"] * len(parts)


def least(works, rounds: int) -> list[float]:
    """Return the least seconds of each of several works, done in turn."""
    seconds = [float("inf")] * len(works)
    for _ in range(rounds):
        for i, work in enumerate(works):
            begun = work()
            start = time.perf_counter()
            begun()
            seconds[i] = min(seconds[i], time.perf_counter() - start)
    return seconds


def measure(
    depth: int, pool: str, width: int, batch: int, batches: int, rounds: int
) -> tuple[list[float], list[float]]:
    """Return the least seconds of a batch in a stream, alone and counted, and those of a replayed step."""
    sizes = (depth, pool, width, batch)
    check(*stream(*sizes, 3))

    def fresh(work, **how):
        net, parts = stream(*sizes, batches)
        return lambda: work(net, parts, **how)

    def each(**how):
        works = [lambda work=work: fresh(work, **how) for work in (alone, counted)]
        return [seconds / batches for seconds in least(works, rounds)]

    streams, unrecorded = each(), each(graph=None)
    net, parts = stream(*sizes, 2)
    alone(net, parts)
    with watching(net, underflow=False, in_kernels=True):  # whose sums a counted step adds to
        alone(net, parts)
        replays = [one.replay for one in graph._of_networks[net].kept.values()]
        assert len(replays) == 2
        return [streams, unrecorded, least([lambda replay=replay: replay for replay in replays], 10 * rounds)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("depth", 18), ("batch", 60), ("batches", 6), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 16])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    print(f"PGD-7, SEW-ResNet{arguments.depth}, batch {arguments.batch}, T=10, 32x32; {machine()}\n")
    heads = [f"{what} alone, ms | counted" for what in ("a batch", "without recordings", "a replayed step")]
    print(f"| width | pooling | threads | {' | '.join(heads)} |\n{9 * '|---'}|")
    for width in arguments.widths:
        for pool in ("max", "avg"):
            for threads in arguments.threads:
                torch.set_num_threads(threads)
                found = measure(arguments.depth, pool, width, arguments.batch, arguments.batches, arguments.rounds)
                cells = [f"{1e3 * a:.1f} | {1e3 * b:.1f} ({100 * (b / a - 1):+.1f} %)" for a, b in found]
                print(f"| {width} | {pool} | {threads} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
