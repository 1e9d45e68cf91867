"""From images in [0, 1] to what a network was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..ops import check

CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class Normalize(nn.Module):
    """(x - mean) / std of every channel: [T, B, C, H, W] -> the same; within the network, so that attacks see [0, 1].

    Args:
        mean: of each channel.
        std: of each channel, above 0.

    Raises:
        ValueError, TypeError: they differ in length, or hold something else; the message names it.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        mean, std = [check.number("mean", value) for value in mean], [check.number("std", v, above=0) for v in std]
        if len(mean) != len(std):
            raise ValueError(f"std has {len(std)} values, expected {len(mean)}: one for each of mean.")
        for name, values in (("mean", mean), ("std", std)):  # constants, which no state_dict holds
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        """Return it normalised."""
        return (x_seq - self.mean) / self.std


def normalize(in_channels: int, mean: Sequence[float] | None, std: Sequence[float] | None) -> nn.Module:
    """Return the Normalize of a network: without a word CIFAR-10's for 3 channels, and none for others.

    Raises:
        ValueError, TypeError: mean or std came alone or is not one number for each channel.
    """
    if (mean is None) != (std is None):
        raise ValueError(f"{'std' if mean is None else 'mean'} came alone: mean and std go together.")
    if mean is None:
        return Normalize(*CIFAR10) if in_channels == 3 else nn.Identity()
    if len(mean) != in_channels:
        raise ValueError(f"mean has {len(mean)} values, expected {in_channels}: one for each of in_channels.")
    return Normalize(mean, std)
