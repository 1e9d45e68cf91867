"""What a sweep's networks see: the images of a data set, and how a batch of them becomes encoded input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .. import data
from ..nn import ENCODERS, EventFrames
from .plan import EVENTS_CODING, Network, Settings

_SALT = 0x636F6465  # "code": a seed gives a code other numbers than it gives to training and attacks


def load(settings: Settings, name: str, split: str) -> data.Dataset:
    """Return one split of a data set; errors as in data.load."""
    return data.load(name, split, settings.root, T=settings.T, size=settings.frame_size)


def encoder(
    settings: Settings, network: Network, generator: torch.Generator | Sequence[torch.Generator] | None = None
) -> nn.Module:
    """Return what turns a batch of a network's images into its input [T, B, C, H, W].

    Args:
        settings: T, and K of the phase code.
        network: whose input.
        generator: of what is random in a code, as in nn.RateEncoder; the others leave it alone.
    """
    if network.coding == EVENTS_CODING:
        return EventFrames(settings.T)
    options = {"phase": {"K": settings.K}, "rate": {"generator": generator}}.get(network.coding, {})
    return ENCODERS[network.coding](settings.T, **options)


def generator(seed: int, device: torch.device) -> torch.Generator:
    """Return where a code has its random numbers from."""
    return torch.Generator(device).manual_seed(seed ^ _SALT)


def side(settings: Settings, network: Network) -> int:
    """Return the height and width of a network's input in pixels."""
    return settings.frame_size if network.coding == EVENTS_CODING else data.SIDE


def channels(network: Network) -> int:
    """Return the channels of a network's input: two polarities of events, or three colours."""
    return 2 if network.coding == EVENTS_CODING else 3
