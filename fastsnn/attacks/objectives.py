"""What an attack climbs, and when it has arrived: from logits [B, classes] and labels [B] to a number per sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F


class Objective(NamedTuple):
    """What an attack climbs.

    Attributes:
        loss: from logits [B, classes] and labels [B] to what is to grow [B].
        reached: from the same to whether the attack has succeeded, bool [B].
    """

    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    reached: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy."""
    return F.cross_entropy(logits, y, reduction="none")


def _towards(logits, y):
    return -cross_entropy(logits, y)


def misclassified(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Tell whether the class is not y."""
    return logits.argmax(1) != y


def _hit(logits, y):
    return logits.argmax(1) == y


AWAY = Objective(cross_entropy, misclassified)
TOWARDS = Objective(_towards, _hit)  # y is the class to reach
