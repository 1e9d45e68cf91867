"""What it costs to count gradients in the kernels while an attack runs: analysis.gradient_sparsity(engine="auto").

    python -m bench.counting [--depth 18] [--widths 64 16] [--threads 1 2] [--batch 60] [--batches 6] [--rounds 5]

FGSM, PGD and Auto-PGD with 7 steps on a stream of batches, alone and counted, in turn on the same new networks: the
least seconds of a batch of a whole stream (its first runs as it is, its second or third is recorded); of PGD also
without recordings, and of one replayed step. By default it is as many batches and images as `fastsnn sparsity` takes of
the digits. First it is checked that what was counted over replayed passes is what is counted over passes as they are.
The goal: 5 %.
"""

from __future__ import annotations

import argparse
import time

import torch

import fastsnn
from fastsnn import functional
from fastsnn.analysis import gradient_sparsity
from fastsnn.analysis.watching import watching
from fastsnn.attacks import APGD, FGSM, PGD, recordings

from .machine import machine
from .pairs import settle
from .recorded import unrecorded

HOW = {"eps": 6 / 255, "alpha": 0.01, "steps": 7, "random_start": False}
ATTACKS = {
    "FGSM": lambda net, **how: FGSM(net, eps=6 / 255, **how),
    "PGD": lambda net, **how: PGD(net, **HOW | how),
    "APGD": lambda net, **how: APGD(net, eps=1e-4, steps=7, **how),  # so small that all samples stay to the end
}


def stream(depth: int, pool: str, width: int, batch: int, batches: int):
    """Return a new network, settled, and batches of noise images with the labels that it gives them."""
    torch.manual_seed(0)
    net = getattr(fastsnn.models, f"sew_resnet{depth}")(pool, width=width)
    images = torch.randint(0, 256, (batches, batch, 3, 32, 32), dtype=torch.uint8)
    inputs = [functional.phase_encode(some, T=10) for some in images]
    settle(net, inputs[0])
    with torch.no_grad():
        return net, [(x, net(x).argmax(1)) for x in inputs]


def alone(attack, net, parts):
    """Attack every batch."""
    torch.manual_seed(1)
    for x, y in parts:
        attack(x, y)


def counted(attack, net, parts):
    """Attack every batch, and count."""
    torch.manual_seed(1)  # of Auto-PGD's starts
    return gradient_sparsity(net, parts, attack=attack, underflow=False, engine="auto", per_step=True)


def check(made, net, parts):
    """Compare what was counted over replayed passes with what is over passes as they are."""
    found = counted(made(net), net, parts)
    with unrecorded():
        expected = counted(made(net), net, parts)
    assert [tuple(map(repr, row)) for row in found] == [tuple(map(repr, row)) for row in expected]
    assert found.passes == expected.passes >= len(parts)


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


def measure(depth: int, pool: str, width: int, batch: int, batches: int, rounds: int) -> list[list[float]]:
    """Return the least seconds of a batch in a stream of each attack, alone and counted, and of PGD's steps."""
    sizes = (depth, pool, width, batch)

    def each(made):
        def fresh(work):
            net, parts = stream(*sizes, batches)
            return lambda: work(made(net), net, parts)

        works = [lambda work=work: fresh(work) for work in (alone, counted)]
        return [seconds / batches for seconds in least(works, rounds)]

    found = []
    for made in ATTACKS.values():
        check(made, *stream(*sizes, 5))
        found.append(each(made))
    with unrecorded():
        found.append(each(ATTACKS["PGD"]))
    net, parts = stream(*sizes, 2)
    attack = ATTACKS["PGD"](net)
    alone(attack, net, parts)
    with watching(net, underflow=False, in_kernels=True):  # whose sums a counted step adds to
        alone(attack, net, parts)
        replays = [one.replay for one in recordings.of_networks[net].kept.values()]
        assert len(replays) == 2
        return [*found, least([lambda replay=replay: replay for replay in replays], 10 * rounds)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("depth", 18), ("batch", 60), ("batches", 6), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 16])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    print(f"SEW-ResNet{arguments.depth}, batch {arguments.batch}, T=10, 32x32; {machine()}\n")
    of = [*(f"a batch of {name}" for name in ATTACKS), "PGD without recordings", "a replayed step"]
    heads = [f"{what} alone, ms | counted" for what in of]
    print(f"| width | pooling | threads | {' | '.join(heads)} |\n{13 * '|---'}|")
    for width in arguments.widths:
        for pool in ("max", "avg"):
            for threads in arguments.threads:
                torch.set_num_threads(threads)
                found = measure(arguments.depth, pool, width, arguments.batch, arguments.batches, arguments.rounds)
                cells = [f"{1e3 * a:.1f} | {1e3 * b:.1f} ({100 * (b / a - 1):+.1f} %)" for a, b in found]
                print(f"| {width} | {pool} | {threads} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
