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


def dlr(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the difference of logits ratio (Croce and Hein 2020, eq. 6), of at least 3 classes."""
    ordered, classes = logits.sort(1)
    first = (classes[:, -1] == y).float()
    difference = _of(logits, y) - ordered[:, -2] * first - ordered[:, -1] * (1 - first)
    return -difference / (ordered[:, -1] - ordered[:, -3] + 1e-12)


def dlr_towards(target: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the targeted loss for one class per sample [B] (Croce and Hein 2020, eq. 7), of at least 4 classes."""

    def loss(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        ordered = logits.sort(1)[0]
        scale = ordered[:, -1] - 0.5 * (ordered[:, -3] + ordered[:, -4]) + 1e-12
        return -(_of(logits, y) - _of(logits, target)) / scale

    return loss


def margin(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return by how much the best of the other classes leads."""
    return logits.scatter(1, y.unsqueeze(1), -torch.inf).amax(1) - _of(logits, y)


def _of(logits, y):
    return logits.gather(1, y.unsqueeze(1)).squeeze(1)


def _towards(logits, y):
    return -cross_entropy(logits, y)


def misclassified(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Tell whether the class is not y."""
    return logits.argmax(1) != y


def _hit(logits, y):
    return logits.argmax(1) == y


AWAY = Objective(cross_entropy, misclassified)
TOWARDS = Objective(_towards, _hit)  # y is the class to reach
