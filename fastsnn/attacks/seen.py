"""Neurons as an attacker sees them: spikes are their own, the gradient is computed by a rule of the attacker's.

A rule is asked for every layer and every look with a gradient: from the layer's current [T, B, ...] and spikes it makes
the function that takes the gradient at the spikes to that at the current. Plain torch, slower than the fused kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from ..nn import IFNode
from ..nn.layers import affine, join
from ..ops.integrate_fire import Neuron, forward, reference

Back = Callable[[torch.Tensor], torch.Tensor]


class Rule(Protocol):
    """How one layer of neurons passes a gradient on.

    Attributes:
        is_independent: whether a sample's gradient does not depend on its batch.
    """

    is_independent: bool

    def begin(self) -> None:
        """Forget what was seen: a climb begins."""

    def back(self, current: torch.Tensor, spikes: torch.Tensor, neuron: Neuron) -> Back:
        """Return the function from the gradient at the spikes to that at the current, both [T, B, ...]."""


class SeenNode(IFNode):
    """Neurons of any kind under a rule; a node becomes one for a while and stays the same module, with its hooks."""

    rule: Rule

    def forward(
        self,
        x_seq: torch.Tensor,
        *,
        scale: torch.Tensor | None = None,
        shift: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
        junction: str | None = None,
    ) -> torch.Tensor:
        """Return what the node returns, with another gradient; the options are those of IFNode.forward."""
        current = affine(x_seq, scale, shift)
        # a look without a gradient teaches a rule nothing
        looks = torch.is_grad_enabled() and current.requires_grad
        spikes = _Fire.apply(current, self.neuron, self.rule) if looks else _fire(current, self.neuron)
        return join(spikes.to(x_seq.dtype), residual, junction)


def _fire(current, neuron):
    return forward(current, None, None, None, None, None, neuron)


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current, neuron, rule):
        spikes = _fire(current, neuron)
        ctx.back = rule.back(current, spikes, neuron)
        return spikes

    @staticmethod
    def backward(ctx, grad):
        return ctx.back(grad), None, None


def through_time(current: torch.Tensor, slopes: torch.Tensor, neuron: Neuron) -> Back:
    """Return the neurons' own backward pass, with `slopes` [T, B, ...] for ds/dh."""
    inputs = (current, None, None, None, None, None, neuron, True, slopes)
    return lambda grad: reference.backward(grad, *inputs)[0]
