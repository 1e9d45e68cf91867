"""Peak memory of PGD, SEW-ResNets, batch 16, T = 10, 32x32: fastsnn against loops (a) and (b) on SpikingJelly.

Each is measured in a process of its own: the highest resident set while two attacks of three steps run (each finds what
the last left behind, e.g. gradients of weights; fastsnn records the second) above the resident set just before, when
network and input are there. So it counts what allocators hold back and what libraries use as scratch, and for fastsnn
its rearranged weights and the memory of the recorded step.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fastsnn

from .baselines import frozen_pgd, paper_pgd, spikingjelly_sew_resnet

KINDS = {"fastsnn": functools.partial(fastsnn.attacks.pgd, random_start=False), "a": paper_pgd, "b": frozen_pgd}
STATUS = Path("/proc/self/status")


@pytest.mark.skipif(not STATUS.exists(), reason="needs Linux's account of a process's memory, /proc/self/status")
@pytest.mark.parametrize("loop", ["a", "b"])
@pytest.mark.parametrize(("depth", "pool"), [(18, "max"), (50, "avg")])
def test_memory_of_pgd_vs_loop(compare_memory, smoke, depth, pool, loop):
    if smoke and depth > 18:
        pytest.skip("smoke run: SEW-ResNet18 only")
    setting = (depth, pool, 16)
    compare_memory(
        lambda: _in_a_process_of_its_own("fastsnn", *setting), lambda: _in_a_process_of_its_own(loop, *setting)
    )


def _in_a_process_of_its_own(kind, *setting) -> int:
    command = [sys.executable, "-m", "bench.test_memory", kind, *map(str, setting)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["moved"] > result["places"] / 4, f"{kind} hardly moved its input: no memory is worth printing"
    return result["bytes"]


def _measure(kind: str, depth: int, pool: str, batch: int) -> dict:
    """Return the bytes that two attacks need at their peak, and how many places of the input the last moved."""
    build = getattr(fastsnn.models, f"sew_resnet{depth}") if kind == "fastsnn" else spikingjelly_sew_resnet
    arguments = (pool,) if kind == "fastsnn" else (depth, pool)
    torch.manual_seed(3407)
    x = fastsnn.functional.phase_encode(torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8))
    y = torch.randint(0, 10, (batch,))
    attack = functools.partial(KINDS[kind], eps=6 / 255, alpha=0.01)
    attack(build(*arguments), x[:, :1], y[:1], steps=1)  # another network, so that code is loaded and nothing is kept
    network = build(*arguments)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the first call freed is the system's again
    before = _resident("VmRSS")
    for _ in range(2):
        adv = attack(network, x, y, steps=3)
    return {"bytes": _resident("VmHWM") - before, "moved": int((adv != x).sum()), "places": x.numel()}


def _resident(name: str) -> int:
    """Return the resident set now (VmRSS) or at its highest (VmHWM), in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    kind, depth, pool, batch = sys.argv[1:]
    print(json.dumps(_measure(kind, int(depth), pool, int(batch))))
