"""How much goes through a network at once: on a GPU as much as its memory holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


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
