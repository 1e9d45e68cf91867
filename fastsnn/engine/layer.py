"""A spiking layer as one step of autograd: product, batch norm, neurons, junction.

Forward: current = form(frames), then the fused neuron with the norm as its prologue. Backward: the neuron's, then the
form's. What stays alive in between is the current alone; also the residual where a junction multiplies with it, and the
layer's input where its weight wants a gradient.
"""

from __future__ import annotations

import torch
from torch import nn

from ..nn import IFNode
from ..nn.norms import follow, running_affine, uses_batch_statistics
from ..ops.differentiable_once import differentiable_once
from ..ops.integrate_fire import backward, forward
from ..ops.norm_fire import fire
from .forms import Form


class PreparedLayer:
    """A layer whose form has been chosen; call it with the layer's input and residual.

    Attributes:
        form: how the product is computed.
        affine: the norm's scale and shift per channel with its running statistics; None to use the batch's.
    """

    def __init__(self, form: Form, conv: nn.Conv2d, norm: nn.BatchNorm2d, neuron: IFNode, dtype: torch.dtype):
        self.form, self.conv, self.norm, self.neuron, self.dtype = form, conv, norm, neuron.neuron, dtype
        self.affine = None if uses_batch_statistics(norm) else running_affine(norm)

    def __call__(self, x_seq: torch.Tensor, residual: torch.Tensor | None, junction: str | None) -> torch.Tensor:
        """[T, B, C, H, W] -> [T, B, planes, h, w]; see nn.spiking_layer."""
        parameters = (self.conv.weight, self.conv.bias, self.norm.weight, self.norm.bias)
        return _Layer.apply(x_seq, residual, *parameters, junction, self)

    def fire(self, current: torch.Tensor, residual: torch.Tensor | None, junction: str | None):
        """Return the layer's output, and what the backward pass needs beside the current (None: the affine)."""
        if self.affine is not None:
            return forward(current, None, *self.affine, residual, junction, self.neuron), None
        norm = self.norm
        out, fired = fire(current, norm.weight, norm.bias, norm.eps, self.neuron, residual, junction)
        follow(norm, fired)
        return out, fired

    def unfire(self, grad_out: torch.Tensor, current: torch.Tensor, residual: torch.Tensor | None, junction, fired):
        """Return the gradients at current, norm weight, norm bias (None with running statistics) and residual."""
        if fired is not None:
            return fired.backward(grad_out, current, residual)
        inputs = (grad_out, current, None, *self.affine, residual, junction, self.neuron)
        grad_current, _, grad_residual = backward(*inputs)
        return grad_current, None, None, grad_residual


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_seq, residual, weight, bias, norm_weight, norm_bias, junction, layer):
        frames = _frames(x_seq, layer.dtype)
        current = _sequence(layer.form.forward(frames), x_seq.shape[:2])
        if residual is not None:
            residual = residual.to(current.dtype)
        out, ctx.fired = layer.fire(current, residual, junction)
        ctx.layer, ctx.junction, ctx.dtype = layer, junction, x_seq.dtype
        kept = frames if ctx.needs_input_grad[2] else None  # only a weight's gradient asks for the layer's input
        ctx.save_for_backward(current, None if junction in (None, "add") else residual, kept)
        return out

    @staticmethod
    def backward(ctx, grad_out):
        current, residual, frames = ctx.saved_tensors
        layer, junction = ctx.layer, None if residual is None else ctx.junction
        grads = layer.unfire(grad_out, current, residual, junction, ctx.fired)
        grad_current, grad_norm_weight, grad_norm_bias, grad_residual = grads
        if residual is None:
            grad_residual = grad_out if ctx.junction == "add" else None
        grad_frames = _frames(grad_current, layer.dtype)
        needs, grad_x, grad_weight, grad_bias = ctx.needs_input_grad, None, None, None
        if needs[0]:
            grad_x = _sequence(layer.form.backward(grad_frames), grad_out.shape[:2]).to(ctx.dtype)
        if needs[2]:
            grad_weight = layer.form.weight_gradient(layer.conv, frames, grad_frames)
        if needs[3]:
            grad_bias = grad_frames.sum((0, 1, 2))
        grad_norm_weight, grad_norm_bias = (
            grad_norm_weight if needs[4] else None,
            grad_norm_bias if needs[5] else None,
        )
        recorded = torch.empty(0, requires_grad=True)  # stands for x_seq, which nobody keeps
        gradients = (grad_x, grad_residual, grad_weight, grad_bias, grad_norm_weight, grad_norm_bias)
        return *differentiable_once("a prepared layer", gradients, grad_out, recorded), None, None


def _frames(x_seq: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[T, B, C, H, W] -> [T*B, H, W, C], dense: the order in memory that forms take."""
    return x_seq.flatten(0, 1).permute(0, 2, 3, 1).to(dtype).contiguous()


def _sequence(frames: torch.Tensor, steps: torch.Size) -> torch.Tensor:
    """[T*B, H, W, C] -> [T, B, C, H, W], without a copy."""
    return frames.permute(0, 3, 1, 2).unflatten(0, steps)
