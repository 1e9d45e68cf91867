"""A spiking layer with frozen weights as one step of autograd: product, batch norm, neurons, junction.

Forward: current = form(frames), then the fused neuron with the norm as its prologue. Backward: the neuron's, then the
form's. What stays alive in between is the current alone (and the residual where a junction multiplies with it).
"""

from __future__ import annotations

import torch
from torch import nn

from ..nn import IFNode
from ..ops.differentiable_once import differentiable_once
from ..ops.integrate_fire import backward, forward
from .forms import Form


class FrozenLayer:
    """A layer whose form has been chosen; call it with the layer's input and residual.

    Attributes:
        form: how the product is computed.
        scale, shift: the norm's affine per channel, for running statistics.
    """

    def __init__(self, form: Form, norm: nn.BatchNorm2d, neuron: IFNode, dtype: torch.dtype):
        self.form, self.neuron, self.dtype = form, neuron.neuron, dtype
        self.scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            self.scale = self.scale * norm.weight
        self.shift = -norm.running_mean * self.scale
        if norm.bias is not None:
            self.shift = self.shift + norm.bias

    def __call__(self, x_seq: torch.Tensor, residual: torch.Tensor | None, junction: str | None) -> torch.Tensor:
        """[T, B, C, H, W] -> [T, B, planes, h, w]; see nn.spiking_layer."""
        return _Layer.apply(x_seq, residual, junction, self)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_seq, residual, junction, layer):
        current = _sequence(layer.form.forward(_frames(x_seq, layer.dtype)), x_seq.shape[:2])
        if residual is not None:
            residual = residual.to(current.dtype)
        multiplied = junction not in (None, "add")
        ctx.layer, ctx.junction, ctx.dtype = layer, junction, x_seq.dtype
        ctx.save_for_backward(current, residual if multiplied else None)
        return forward(current, None, layer.scale, layer.shift, residual, junction, layer.neuron)

    @staticmethod
    def backward(ctx, grad_out):
        current, residual = ctx.saved_tensors
        layer, junction = ctx.layer, None if residual is None else ctx.junction
        inputs = (grad_out, current, None, layer.scale, layer.shift, residual, junction, layer.neuron)
        grad_current, _, grad_residual = backward(*inputs)
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
