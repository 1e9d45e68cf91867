"""The card that is measured: its clock, its memory, what it can do at most, and what describes it."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from fastsnn.sweep import machine

ROOT = Path(__file__).parent.parent.parent
FLUSH = {"cuda": 2**30, "cpu": 2**20}  # bytes: beyond any L2, and long enough to write that launches are queued behind


class Card:
    """A device, and clocks that wait for it; on a CPU (a dry run) the same calls do the same, and flush no cache."""

    def __init__(self, device: str):
        self.device = torch.device(device)
        self._scratch = torch.empty(FLUSH[self.device.type], dtype=torch.int8, device=self.device)
        self._bandwidth: float | None = None

    @property
    def is_gpu(self) -> bool:
        """Tell whether this is no dry run."""
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Wait until all work is done."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def kernel_seconds(self, work: Callable, rounds: int) -> float:
        """Return the median seconds of a kernel alone, from events on the device, its inputs no longer in L2."""
        work()
        if not self.is_gpu:
            return statistics.median(self._timed(work) for _ in range(rounds))
        spans = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
        for start, end in spans:
            self._scratch.zero_()
            start.record()
            work()
            end.record()
        self.wait()
        return statistics.median(start.elapsed_time(end) for start, end in spans) / 1e3

    def best_in_turns(self, works: dict[str, Callable], rounds: int) -> dict[str, float]:
        """Return the best seconds of each, by the host's clock, A B A B; everything has been called once before."""
        best = dict.fromkeys(works, float("inf"))
        for _ in range(rounds):
            for name, work in works.items():
                best[name] = min(best[name], self._timed(work))
        return best

    def peak_bytes(self, work: Callable) -> int | None:
        """Return the most memory that torch had given out during `work`, above what was there; None on a CPU."""
        if not self.is_gpu:
            work()
            return None
        self.wait()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        self.wait()
        return torch.cuda.max_memory_allocated(self.device) - before

    def bandwidth(self) -> float:
        """Return the bytes per second of a large copy, read and written; measured once."""
        if self._bandwidth is None:
            source = torch.randint(0, 100, (len(self._scratch),), dtype=torch.int8, device=self.device)
            seconds = self.kernel_seconds(lambda: self._scratch.copy_(source), 20)
            self._bandwidth = 2 * len(source) / seconds
        return self._bandwidth

    def _timed(self, work) -> float:
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start


def ceilings(card: Card, sizes, clock) -> Iterator[dict]:
    """Measure what bounds everything else: a large copy, and square matrix products in the types that attacks use."""
    yield {"what": "copy, read + written", "amount": card.bandwidth() / 1e9, "unit": "GB/s"}
    n = sizes.gemm
    for name, dtype, mode in (
        ("float32, IEEE", torch.float32, "ieee"),
        ("float32, TF32", torch.float32, "tf32"),
        ("bfloat16", torch.bfloat16, None),
    ):
        a, b = (torch.randn(n, n, device=card.device).to(dtype) for _ in range(2))
        with products(mode):
            seconds = card.kernel_seconds(lambda a=a, b=b: a @ b, 10)
        yield {"what": f"product of {n}x{n}, {name}", "amount": 2 * n**3 / seconds / 1e12, "unit": "TFLOP/s"}


class products:  # noqa: N801 - reads as a statement
    """What a GPU makes of float32 products, "ieee" or "tf32", the same for whoever computes inside; None leaves it."""

    def __init__(self, mode: str | None):
        self.mode, self.settings = mode, (torch.backends.cudnn.conv, torch.backends.cuda.matmul)

    def __enter__(self):
        self.before = [setting.fp32_precision for setting in self.settings]
        for setting in self.settings if self.mode else ():
            setting.fp32_precision = self.mode

    def __exit__(self, *_):
        for setting, value in zip(self.settings, self.before, strict=True):
            setting.fp32_precision = value


def describe(card: Card) -> dict:
    """Return what the numbers belong to: the card, its driver, versions, processor, and the commit."""
    about = {"device": card.device.type, "processor": machine.processor(), "threads": torch.get_num_threads()}
    if card.is_gpu:
        found = torch.cuda.get_device_properties(card.device)
        about |= {
            "gpu": found.name,
            "memory": found.total_memory,
            "capability": f"{found.major}.{found.minor}",
            "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0],
            "cuda": torch.version.cuda,
        }
    dirty = " and changes" if _said("git", "status", "--porcelain", "--untracked-files=no") else ""
    commit = _said("git", "rev-parse", "HEAD")
    about["commit"] = commit + dirty if commit else "unknown: no git here"
    return about | {"versions": machine.versions()}


def _said(*command: str) -> str:
    """Return what a command printed, "" where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
