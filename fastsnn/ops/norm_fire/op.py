"""Batch norm with the batch's own statistics, neurons and a junction: one step of autograd, two passes of numbers.

    mean, var = statistics of x over all but the channels
    scale = weight / sqrt(var + eps),   shift = bias - mean * scale
    out = integrate_fire(x, scale, shift, residual, junction)

What stays alive for the backward pass is x (and the residual where a junction multiplies with it).
"""

from __future__ import annotations

import torch

from .. import check, integrate_fire, layout
from ..differentiable_once import differentiable_once
from ..integrate_fire import Neuron
from . import cpu, reference


def fire(x_seq, weight, bias, eps: float, neuron: Neuron, residual=None, junction: str | None = None):
    """Return the output without a gradient, and the Fired that its backward pass needs.

    Args:
        x_seq: input current [T, B, C, H, W]; float32 in channels-last frames is fastest on a CPU.
        weight: the norm's factor [C], or None for 1.
        bias: the norm's summand [C], or None for 0.
        eps: added to the variance.
        neuron: constants of the neurons.
        residual: as in functional.integrate_fire.
        junction: as in functional.integrate_fire.

    Raises:
        ValueError: one value per channel, which has no variance; a weight or bias of another size.
    """
    fired = Fired(x_seq, weight, bias, eps, neuron, junction)
    return integrate_fire.forward(x_seq, None, fired.scale, fired.shift, residual, junction, neuron), fired


class Normed:
    """A batch norm with the batch's own statistics: those, and what follows from them, but not the tensors themselves.

    Attributes:
        mean, var: of the batch [C], the variance biased.
        count: values per channel.
        scale, shift: what the norm amounts to [C].
    """

    def __init__(self, x_seq, weight, bias, eps):
        self.count = x_seq.numel() // max(1, x_seq.shape[2])
        if self.count < 2:
            raise ValueError(f"x_seq has shape {list(x_seq.shape)}: batch statistics need two values per channel.")
        for name, parameter in (("weight", weight), ("bias", bias)):
            if parameter is not None:
                check.companion(name, parameter, x_seq.shape[2:3], "the channels of x_seq", x_seq.device)
        self.mean, self.var = _passes(x_seq).statistics(x_seq)
        self.rstd = (self.var + eps).rsqrt()
        self.scale = self.rstd if weight is None else self.rstd * weight
        self.shift = -self.mean * self.scale if bias is None else bias - self.mean * self.scale

    def backward(self, grad, x_seq):
        """Return the gradients at x_seq, weight and bias from that at the norm's output, which may be overwritten."""
        passes, grad = _passes(x_seq), layout.like(grad, x_seq)
        total, weighted = passes.sums(grad, x_seq, self.mean)
        # the gradient is scale * (grad - mean(grad) - (x - mean) * rstd^2 * mean(grad * (x - mean)))
        slope = -self.scale * self.rstd.square() * weighted / self.count
        constant = -self.scale * total / self.count - slope * self.mean
        grad_x = passes.affine(grad, x_seq, self.scale, slope, constant)
        return grad_x, weighted * self.rstd, total


class Fired(Normed):
    """The same with neurons and a junction behind it."""

    def __init__(self, x_seq, weight, bias, eps, neuron, junction):
        super().__init__(x_seq, weight, bias, eps)
        self.neuron, self.junction = neuron, junction

    def backward(self, grad_out, x_seq, residual):
        """Return the gradients at x_seq, weight, bias and residual (None for "add", where it is grad_out itself)."""
        junction = None if residual is None else self.junction
        inputs = (grad_out, x_seq, None, self.scale, self.shift, residual, junction, self.neuron)
        grad, _, grad_residual = integrate_fire.backward(*inputs, through_affine=False)
        return *super().backward(grad, x_seq), grad_residual


def norm_fire(x_seq, weight, bias, eps: float, neuron: Neuron, residual=None, junction: str | None = None):
    """Return the output and its Fired, see `fire`; differentiable once in x_seq, weight, bias and residual."""
    return _NormFire.apply(x_seq, weight, bias, residual, junction, neuron, eps)


class _NormFire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_seq, weight, bias, residual, junction, neuron, eps):
        x_seq = layout.dense(x_seq)
        out, ctx.fired = fire(x_seq, weight, bias, eps, neuron, residual, junction)
        ctx.save_for_backward(x_seq, residual if junction not in (None, "add") else None)
        return out, ctx.fired

    @staticmethod
    def backward(ctx, grad_out, *_):
        x_seq, residual = ctx.saved_tensors
        grad_x, grad_weight, grad_bias, grad_residual = ctx.fired.backward(grad_out, x_seq, residual)
        if residual is None:
            grad_residual = grad_out if ctx.fired.junction == "add" else None
        needs = ctx.needs_input_grad
        gradients = (grad_x, grad_weight if needs[1] else None, grad_bias if needs[2] else None, grad_residual)
        return *differentiable_once("norm_fire", gradients, grad_out, x_seq, residual), None, None, None


def _passes(x_seq: torch.Tensor):
    return cpu if cpu.serves(x_seq) else reference
