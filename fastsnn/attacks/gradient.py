"""What attacks climb along: the gradient of the summed loss with respect to the input, and nothing else."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from ..engine.under_attack import under_attack
from ..ops import check, layout
from ..ops.attack_step import default_batch_axis
from .independence import draws_for_each
from .objectives import AWAY, Objective
from .seen import Rule

_LABELS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


Look = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # the gradient, like x; for each sample its loss and its logits


class Replaying(Protocol):
    """What may answer in place of the network; see looks.Replays."""

    def look(self, gradient: InputGradient, x: torch.Tensor, y: torch.Tensor) -> Look | None:
        """Return what gradient.look returns, or None."""


class InputGradient:
    """The gradient of the summed loss at an iterate: call it with iterate and labels [B], int64.

    Attributes:
        independent: whether a sample's gradient does not depend on its batch; see independence.
        replays: what may replay steps and looks, or None.
        objective: the loss, and when it is large enough.
        rules: that neurons pass the gradient on by, where the attacker's surrogate is one.
        passes: how many are averaged for a look; see EOT.
        order: the block that a look is in, and the attack's own operations are not; see independence.
        finite: whether all logits and gradients so far were, a tensor; None before the first call.
        classes: how many logits the network returns for a sample; None before the first call.
    """

    def __init__(
        self,
        network: Callable,
        module: Callable,
        bn: str,
        independent: bool,
        replays: Replaying | None = None,
        objective: Objective = AWAY,
        rules: Sequence[Rule] = (),
        passes: int = 1,
        order: contextlib.AbstractContextManager | None = None,
    ):
        self.network, self.module, self.bn, self.independent, self.replays = network, module, bn, independent, replays
        self.objective, self.rules, self.passes = objective, rules, passes
        self.order = order or contextlib.nullcontext()
        self.finite: torch.Tensor | None = None
        self.classes: int | None = None

    @functools.cached_property
    def may_leave(self) -> bool:
        """Whether samples may leave the batch: they share no statistics, and no list has a generator for each."""
        return self.bn == "frozen" and not draws_for_each(self.module)

    def again(self, objective: Objective | None = None) -> InputGradient:
        """Return the same function, or that of another objective, which has not been called."""
        objective = objective or self.objective
        how = (self.bn, self.independent, self.replays, objective, self.rules, self.passes, self.order)
        return InputGradient(self.network, self.module, *how)

    def begin(self) -> None:
        """Forget what the attacker's surrogate has seen: a climb begins, maybe with other samples."""
        for rule in self.rules:
            rule.begin()

    def take(self, finite: torch.Tensor) -> None:
        """Take over whether logits and gradients that were computed elsewhere were finite."""
        self.finite = finite.clone() if self.finite is None else self.finite & finite

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the gradient, like x; see look."""
        return self.look(x, y)[0]

    def look(self, x: torch.Tensor, y: torch.Tensor) -> Look:
        """Return the gradient, like x, and for each sample its loss and its logits [B, classes].

        The next look may write its gradient to the same memory.
        """
        replayed = self.replays.look(self, x, y) if self.replays is not None else None
        if replayed is not None:
            return replayed
        with self.order:
            return self._mean(self._look_once, x, y)

    def _mean(self, once, x, y):
        """Return the means over all passes of what one of them returns, a tuple."""
        first = once(x, y)
        if self.passes == 1:
            return first
        others = (once(x, y) for _ in range(self.passes - 1))
        sums = functools.reduce(lambda these, those: map(torch.add, these, those), others, first)
        return tuple(each / self.passes for each in sums)

    def _look_once(self, x, y):
        x, logits = self.forward(x, y)
        loss, at_logits = at_the_logits(self.objective, logits, y)
        return self.backward(x, logits, at_logits), loss, logits.detach().float()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a tensor like x that asks for its gradient, and its logits [B, classes]; y is only checked."""
        x = x.detach().requires_grad_()
        logits = self.network(x)
        self._look_at(logits, y)
        return x, logits

    def backward(self, x: torch.Tensor, logits: torch.Tensor, at_logits: torch.Tensor) -> torch.Tensor:
        """Return the gradient at x, like x, from that at its logits."""
        (gradient,) = torch.autograd.grad(logits, x, at_logits)
        self.finite &= torch.isfinite(gradient.sum())
        return layout.like(gradient, x)  # else every pass over both would walk one of them against its grain

    def outcome(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return, for each sample of x, whether the attack has succeeded there, and its loss; moves no statistics."""
        logits = self.logits(x, y)
        return self.objective.reached(logits, y), self.objective.loss(logits, y)

    def logits(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the logits [B, classes] in float32, without a gradient; y is only checked. Moves no statistics."""
        still = under_attack(self.module, "batch") if self.bn == "drift" else contextlib.nullcontext()
        with torch.no_grad(), still, self.order:
            return self._mean(self._logits_once, x, y)[0]

    def _logits_once(self, x, y):
        logits = self.network(x.detach())
        self._look_at(logits, y, differentiable=False)
        return (logits.float(),)

    def _look_at(self, logits, y, differentiable=True):
        if self.finite is None:
            _check_logits(logits, y, differentiable)
            self.classes = logits.shape[1]
            self.finite = torch.ones((), dtype=torch.bool, device=logits.device)
        self.finite &= torch.isfinite(logits).all()  # looked at once, at the end: a GPU need not wait at every step

    def check_finite(self) -> None:
        """Raise if any logits or gradients were not finite."""
        if self.finite is not None and not bool(self.finite):
            raise ValueError("network returned logits or gradients that are not finite (inf or NaN).")


def at_the_logits(objective: Objective, logits: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of each sample [B], and the gradient of their sum at the logits [B, classes]."""
    logits = logits.detach().requires_grad_()
    loss = objective.loss(logits.float(), y)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), gradient


def check_input(x: torch.Tensor, y: torch.Tensor) -> None:
    """Refuse what cannot be attacked, before any work is done.

    Raises:
        ValueError, TypeError: x is not float32 in [0, 1] with a batch, or y not one label for each of its samples.
    """
    check.tensor("x", x, (torch.float32,))
    if x.dim() < 2:
        raise ValueError(f"x has shape {list(x.shape)}, expected images [B, C, H, W] or encoded input [T, B, C, H, W].")
    if x.dim() == 5 and x.shape[0] == 0:
        raise ValueError(f"x has shape {list(x.shape)}: its time axis (the first) is empty, expected T >= 1.")
    check.tensor("y", y, _LABELS)
    samples = x.shape[default_batch_axis(x)]
    if tuple(y.shape) != (samples,):
        raise ValueError(f"y has shape {list(y.shape)}, expected [{samples}]: one label for each sample of x.")
    if y.device != x.device:
        raise ValueError(f"y is on {y.device} but x is on {x.device}; move one of them with .to(device).")
    low, high = (one.item() for one in torch.aminmax(x.detach())) if x.numel() else (0, 1)
    if not (low >= 0 and high <= 1):  # NaN is neither
        what = f"values from {low:g} to {high:g}" if math.isfinite(low) and math.isfinite(high) else "inf or NaN"
        raise ValueError(f"x has {what}, expected numbers in [0, 1].")
    if samples and y.min() < 0:
        raise ValueError(f"y has the label {y.min().item()}, expected labels of at least 0.")


def _check_logits(logits, y, differentiable):
    if logits.dim() != 2 or logits.shape[0] != y.shape[0]:
        raise ValueError(f"network returned shape {list(logits.shape)}, expected logits [{y.shape[0]}, classes].")
    if differentiable and not logits.requires_grad:
        raise ValueError(
            "network's logits do not depend differentiably on x: is there an encoder without straight_through=True, "
            "a detach() or a no_grad() in between?"
        )
    check_labels(y, logits.shape[1])


def check_labels(y: torch.Tensor, classes: int) -> None:
    """Raise a ValueError if one of the labels [B] is not below `classes`."""
    if y.numel() and y.max() >= classes:
        raise ValueError(f"y has the label {y.max().item()}, but network returned {classes} classes.")
