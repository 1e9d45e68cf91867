"""What it brings to replay the passes of attacks on a CPU rather than to run them through Python and autograd.

    python -m bench.recorded [--batches 1 4 16 64 128] [--rounds 5]

SEW-ResNet18 with average pooling, T = 10, 32x32; each attack without recordings and with, in turn, best of the rounds,
after the attacks that record; first it is checked that both give the same bits. PGD with 7 steps, whose steps are
recorded, for all sizes of batches; then attacks whose looks are, with 7 steps at batch 16.
"""

from __future__ import annotations

import argparse
import contextlib
import time

import torch

import fastsnn
from fastsnn import attacks, functional
from fastsnn.attacks import recordings

from .machine import machine
from .pairs import settle

COLUMNS = ((64, {}), (64, {"precision": "fast"}), (16, {}), (64, {"bn": "drift"}), (16, {"bn": "drift"}))
STEPS = {"eps": 6 / 255, "alpha": 0.01, "steps": 7}
AUTO = {"eps": 1e-4, "steps": 7}  # so small that all samples stay to the end
ATTACKS = {
    "FGSM": lambda net, how: attacks.FGSM(net, eps=6 / 255, **how),
    "PGD, l2": lambda net, how: attacks.PGD(net, norm="l2", random_start=False, **STEPS, **how),
    "MIM": lambda net, how: attacks.MIM(net, **STEPS, **how),
    "APGD": lambda net, how: attacks.APGD(net, **AUTO, **how),
    "APGDT, 2 targets": lambda net, how: attacks.APGDT(net, targets=2, **AUTO, **how),
}


def pgd(net, how):
    """Return PGD with the paper's settings."""
    return attacks.PGD(net, random_start=False, **STEPS, **how)


@contextlib.contextmanager
def unrecorded():
    """Let nothing be recorded or replayed inside the block."""
    own, recordings.recorder_on = recordings.recorder_on, lambda device: None
    try:
        yield
    finally:
        recordings.recorder_on = own


def measure(made, net, x, y, rounds: int, how: dict) -> list[float]:
    """Return the least seconds of an attack without and with recordings."""
    before, attack = [(buffer, buffer.clone()) for buffer in net.buffers()], made(net, how)

    def once():
        for buffer, value in before if "bn" in how else ():  # which drift
            buffer.copy_(value)
        torch.manual_seed(1)  # of Auto-PGD's starts
        return attack(x, y)

    with unrecorded():
        expected = once()
    assert all(torch.equal(once(), expected) for _ in range(4)), "a replay has other bits"
    assert recordings.of_networks[net].kept, "nothing was recorded"
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for i, block in enumerate((unrecorded(), contextlib.nullcontext())):
            with block:
                start = time.perf_counter()
                once()
                best[i] = min(best[i], time.perf_counter() - start)
    return best


def row(made, batch: int, rounds: int) -> list[str]:
    """Return the cells of one attack."""
    images, cells = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8), []
    x = functional.phase_encode(images, T=10)
    for width, how in COLUMNS:
        torch.manual_seed(0)
        net = fastsnn.models.sew_resnet18("avg", width=width)
        settle(net, x)
        with torch.no_grad():
            y = net(x).argmax(1)
        if made in (ATTACKS["APGD"], ATTACKS["APGDT, 2 targets"]) and "bn" in how:
            cells.append("")  # drifting statistics turn labels, and samples leave
            continue
        without, replayed = (1e3 * seconds for seconds in measure(made, net, x, y, rounds, how))
        cells.append(f"{without:.0f}, {replayed:.0f}: {without / replayed:.2f}x")
    return cells


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64, 128])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    names = [f"width {width}, {', '.join(how.values()) or 'fp32'}" for width, how in COLUMNS]
    print(f"ms of an attack without and with recordings; {machine()}")
    kinds = {"PGD, batch": [(batch, pgd, batch) for batch in arguments.batches]}
    kinds |= {"batch 16": [(name, made, 16) for name, made in ATTACKS.items()]}
    for head, lines in kinds.items():
        print(f"\n| {head} | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
        for name, made, batch in lines:
            print(f"| {name} | {' | '.join(row(made, batch, arguments.rounds))} |", flush=True)


if __name__ == "__main__":
    main()
