"""What a sweep's networks see: the images of a data set, and how a batch of them becomes encoded input."""

from __future__ import annotations

from torch import nn

from .. import data
from ..nn import EventFrames, PhaseEncoder
from .plan import Network, Settings


def load(settings: Settings, name: str, split: str) -> data.Dataset:
    """Return one split of a data set; errors as in data.load."""
    return data.load(name, split, settings.root, T=settings.T, size=settings.frame_size)


def encoder(settings: Settings, network: Network) -> nn.Module:
    """Return what turns a batch of a network's images into its input [T, B, C, H, W]; recordings pass as they are."""
    return EventFrames(settings.T) if network.data in data.EVENTS else PhaseEncoder(settings.T, settings.K)


def channels(network: Network) -> int:
    """Return the channels of a network's input: two polarities of events, or three colours."""
    return 2 if network.data in data.EVENTS else 3
