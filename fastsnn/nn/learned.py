"""Neurons whose threshold and leak are learned, one of each per layer (Rathi & Roy 2020, as HIRE-SNN's networks have).

    h[t] = leak * v[t-1] + x[t]          charge
    s[t] = h[t] >= threshold             fire
    v[t] = 0 where s[t] else h[t]        hard reset;  h[t] - threshold * s[t], soft

and their gradients, with gh the gradient at h (which the fused backward pass returns as that at x), sg the surrogate at
h - threshold, and carry[t] = leak * gh[t+1]:

    g_leak      =  sum gh[t] * v[t-1]
    g_threshold = -sum of what came through the spikes, gs[t] * sg[t] = gh[t] - carry[t] (where not s[t], if hard)
                  -sum carry[t] * s[t], if soft

They start as the IF neurons that they replace: leak 1, the same threshold. A pass with frozen weights, as in an attack,
is the kernels' own with these two as constants.
"""

from __future__ import annotations

import torch
from torch import nn

from ..ops.integrate_fire import backward, checked, forward
from .layers import affine, join
from .neurons import IFNode

LEAST = 0.01  # of threshold and leak: at 0 a neuron would fire always, or forget all


class LearnedNode(IFNode):
    """IF neurons with a threshold and a leak that are learned; made by learn_neurons.

    Args:
        constants: as in IFNode; v_reset is 0 or None.

    Raises:
        ValueError, TypeError: a constant is out of range; the message names it.

    Attributes:
        threshold: a parameter, a number; at least LEAST after `into_range`.
        leak: a parameter, a number; LEAST to 1 after `into_range`.
    """

    def __init__(self, **constants):
        super().__init__(**constants)
        if self.neuron.v_reset not in (0, None):
            raise ValueError(f"v_reset is {self.neuron.v_reset}, expected 0 or None where the leak is learned.")
        self.threshold = nn.Parameter(torch.tensor(float(self.neuron.v_threshold)))
        self.leak = nn.Parameter(torch.tensor(1.0))
        self._read: tuple[int, int] | None = None  # versions of the parameters that `neuron` has

    def forward(
        self,
        x_seq: torch.Tensor,
        *,
        scale: torch.Tensor | None = None,
        shift: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
        junction: str | None = None,
    ) -> torch.Tensor:
        """Return spikes; the options are those of IFNode.forward."""
        self.read()
        if not (torch.is_grad_enabled() and (self.threshold.requires_grad or self.leak.requires_grad)):
            return super().forward(x_seq, scale=scale, shift=shift, residual=residual, junction=junction)
        current = affine(x_seq, scale, shift)
        spikes = _Learn.apply(current, self.threshold, self.leak, self.neuron)
        return join(spikes.to(x_seq.dtype), residual, junction)

    def read(self) -> None:
        """Make the parameters the constants of `neuron`, which kernels and attackers take.

        On a GPU only where torch counted a change of them: to read a number is to wait.
        """
        versions = (self.threshold._version, self.leak._version)
        if self._read == versions and self.leak.is_cuda and not self.leak.requires_grad:
            return
        threshold, leak = self.threshold.item(), self.leak.item()
        if not (threshold > 0 and 0 < leak <= 1):
            raise ValueError(f"threshold is {threshold} and leak is {leak}, expected above 0, and leak at most 1.")
        tau = None if leak == 1 else 1 / (1 - leak)
        self.neuron = checked(self.neuron._replace(v_threshold=threshold, tau=tau, decay_input=False))
        self._read = versions

    @torch.no_grad()
    def into_range(self) -> None:
        """Move the parameters to the nearest values in their ranges, as after a step of an optimizer."""
        self.threshold.clamp_(min=LEAST)
        self.leak.clamp_(LEAST, 1)
        self.read()

    def _load_from_state_dict(self, *arguments) -> None:
        super()._load_from_state_dict(*arguments)
        self.read()


def learn_neurons(net: nn.Module) -> nn.Module:
    """Give a network neurons that learn in place of its IF neurons; return it. Its outputs stay the same.

    Raises:
        ValueError: a neuron leaks already, or resets to another voltage than 0.
    """
    for module in list(net.modules()):
        for name, child in module.named_children():
            if not isinstance(child, IFNode) or isinstance(child, LearnedNode):
                continue
            constants = child.neuron._asdict()
            if constants.pop("tau") is not None:
                raise ValueError(f"{name} leaks already, expected IF neurons.")
            del constants["decay_input"]
            setattr(module, name, LearnedNode(**constants))
    return net


def learned_neurons(net: nn.Module) -> list[LearnedNode]:
    """Return the neurons of a network that learn."""
    return [module for module in net.modules() if isinstance(module, LearnedNode)]


class _Learn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current, threshold, leak, neuron):
        ctx.save_for_backward(current)
        ctx.neuron = neuron
        return forward(current, None, None, None, None, None, neuron)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out):
        (current,) = ctx.saved_tensors
        neuron, hard = ctx.neuron, ctx.neuron.v_reset is not None
        gh, _, _ = backward(grad_out, current, None, None, None, None, None, neuron)
        leak = 1.0 if neuron.tau is None else 1 - 1 / neuron.tau
        v, grad_leak, grad_threshold = torch.zeros_like(current[0]), 0.0, 0.0
        for t, x in enumerate(current):
            grad_leak = grad_leak + (gh[t] * v).sum()
            h = v + x if neuron.tau is None else v - v / neuron.tau + x
            fired = h >= neuron.v_threshold
            v = torch.where(fired, 0.0, h) if hard else h - fired * neuron.v_threshold
            carry = leak * gh[t + 1] if t + 1 < len(gh) else torch.zeros_like(x)
            grad_threshold = grad_threshold - (gh[t] - (torch.where(fired, 0.0, carry) if hard else carry)).sum()
            grad_threshold = grad_threshold - (0.0 if hard else (carry * fired).sum())
        return gh, grad_threshold, grad_leak, None
