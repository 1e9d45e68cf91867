"""What every code but the phase code begins with: pixels as numbers in [0, 1]."""

from __future__ import annotations

import torch

from ...ops import check


def unit(name: str, values: torch.Tensor) -> torch.Tensor:
    """Return uint8 values / 255, or floats in [0, 1], as float32; anything else is refused by its name."""
    check.tensor(name, values, (torch.uint8, *check.STORAGE_DTYPES))
    if values.dtype == torch.uint8:
        return values / 255
    return check.unit_interval(name, values).float()
