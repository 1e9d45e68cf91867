"""What a defence works with: a network, the loss at a batch, and one step of the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ..nn import learned_neurons


@dataclass(frozen=True)
class Learner:
    """One network in training.

    Attributes:
        net: the network itself, in train mode.
        network: how it is called: the same, in its fastest form.
        optimizer: of its parameters.
        generator: of a defence's random numbers, on the CPU; saved with a checkpoint.
        highest_label: among all labels.
    """

    net: nn.Module
    network: Callable[[torch.Tensor], torch.Tensor]
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    highest_label: int

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [B, classes] for encoded input x."""
        logits = self.network(x)
        if self.highest_label >= logits.shape[1]:  # a GPU would abort the process
            raise ValueError(f"labels go up to {self.highest_label}, but net has {logits.shape[1]} classes.")
        return logits

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy at x with labels y [B]."""
        return F.cross_entropy(self.logits(x), y)

    def descend(self, loss: torch.Tensor) -> None:
        """Take one step of the optimizer down the gradient of `loss`."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        for neuron in learned_neurons(self.net):
            neuron.into_range()


# learns from encoded input [T, B, C, H, W] and labels [B], and returns the loss, detached
Defence = Callable[[Learner, torch.Tensor, torch.Tensor], torch.Tensor]


def undefended(learner: Learner, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Descend the cross-entropy, as the paper trains."""
    loss = learner.loss(x, y)
    learner.descend(loss)
    return loss.detach()
