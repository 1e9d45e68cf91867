"""A spiking layer with frozen weights as one step of autograd: product, batch norm, neurons, junction.

Forward: current = form(frames), then the fused neuron with the norm as its prologue. Backward: the neuron's, then the
form's. What stays alive in between is the current alone (and the residual where a junction multiplies with it).
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


class FrozenLayer:
    """A layer whose form has been chosen; call it with the layer's input and residual.

    Attributes:
        form: how the product is computed.
        affine: the norm's scale and shift per channel with its running statistics; None to use the batch's.
    """

    def __init__(self, form: Form, norm: nn.BatchNorm2d, neuron: IFNode, dtype: torch.dtype):
        self.form, self.norm, self.neuron, self.dtype = form, norm, neuron.neuron, dtype
        self.affine = None if uses_batch_statistics(norm) else running_affine(norm)

    def __call__(self, x_seq: torch.Tensor, residual: torch.Tensor | None, junction: str | None) -> torch.Tensor:
        """[T, B, C, H, W] -> [T, B, planes, h, w]; see nn.spiking_layer."""
        return _Layer.apply(x_seq, residual, junction, self)

    def fire(self, current: torch.Tensor, residual: torch.Tensor | None, junction: str | None):
        """Return the layer's output, and what the backward pass needs beside the current (None: the affine)."""
        if self.affine is not None:
            return forward(current, None, *self.affine, residual, junction, self.neuron), None
        norm = self.norm
        out, fired = fire(current, norm.weight, norm.bias, norm.eps, self.neuron, residual, junction)
        follow(norm, fired)
        return out, fired

    def unfire(self, grad_out: torch.Tensor, current: torch.Tensor, residual: torch.Tensor | None, junction, fired):
        """Return the gradients at the current and at the residual."""
        if fired is not None:
            grad_current, _, _, grad_residual = fired.backward(grad_out, current, residual)
        else:
            inputs = (grad_out, current, None, *self.affine, residual, junction, self.neuron)
            grad_current, _, grad_residual = backward(*inputs)
        return grad_current, grad_residual


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_seq, residual, junction, layer):
        current = _sequence(layer.form.forward(_frames(x_seq, layer.dtype)), x_seq.shape[:2])
        if residual is not None:
            residual = residual.to(current.dtype)
        out, ctx.fired = layer.fire(current, residual, junction)
        ctx.layer, ctx.junction, ctx.dtype = layer, junction, x_seq.dtype
        ctx.save_for_backward(current, None if junction in (None, "add") else residual)
        return out

    @staticmethod
    def backward(ctx, grad_out):
        current, residual = ctx.saved_tensors
        layer, junction = ctx.layer, None if residual is None else ctx.junction
        grad_current, grad_residual = layer.unfire(grad_out, current, residual, junction, ctx.fired)
        if residual is None:
            grad_residual = grad_out if ctx.junction == "add" else None
        grad_x = _sequence(layer.form.backward(_frames(grad_current, layer.dtype)), grad_out.shape[:2]).to(ctx.dtype)
        recorded = torch.empty(0, requires_grad=True)  # stands for x_seq, which nobody keeps
        gradients = differentiable_once("a prepared layer", (grad_x, grad_residual), grad_out, recorded)
        return *gradients, None, None


def _frames(x_seq: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[T, B, C, H, W] -> [T*B, H, W, C], dense: the order in memory that forms take."""
    return x_seq.flatten(0, 1).permute(0, 2, 3, 1).to(dtype).contiguous()


def _sequence(frames: torch.Tensor, steps: torch.Size) -> torch.Tensor:
    """[T*B, H, W, C] -> [T, B, C, H, W], without a copy."""
    return frames.permute(0, 3, 1, 2).unflatten(0, steps)
