"""How much goes through a network at once: on a GPU as much as its memory holds, on a CPU what is fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")
# ms per sample and step of PGD in passes of 1, 16, 64, 100, 200, 400 samples, SEW-ResNet18, T=10, 32x32, one core with
# 32 MiB of last-level cache: width 16 10.4, 2.1, 1.7, 1.6, 1.6, 1.9; width 64 18, 8.6, 7.6, 7.5, 7.7, 9.5
ON_CPU = 128


def first_try(device: torch.device, samples: int) -> int:
    """Return how many of so many samples to try together: on a CPU a fixed number that is fast, elsewhere all."""
    return max(1, min(samples, ON_CPU) if device.type == "cpu" else samples)


def halved_until_it_fits(work: Callable[[int], Result], size: int) -> tuple[Result, int]:
    """Return work(size), and the size, halved as often as the device ran out of memory.

    Args:
        work: does the first `size` of what there is to do; called again after torch.OutOfMemoryError, from the start.
        size: to begin with, at least 1.

    Raises:
        torch.OutOfMemoryError: not even one fits.
    """
    while True:
        try:
            return work(size), size
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        size //= 2  # out of the except block: its traceback held what was to be freed
        torch.cuda.empty_cache()
