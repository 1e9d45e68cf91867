"""A spiking layer as one step of autograd: product, batch norm, neurons, junction.

Forward: current = form(frames), then the fused neuron with the norm as its prologue; a residual that joins the current,
or a layer without neurons, makes the norm a pass of its own. Backward: the neuron's, then the norm's and the form's.
What stays alive in between is the neurons' input alone; also the residual where a junction multiplies with it, the
current where a norm with batch statistics is a pass of its own, and the layer's input where its weight asks for a
gradient.
"""

from __future__ import annotations

import torch
from torch import nn

from ..nn import IFNode
from ..nn.in_force import LayerCounts, TakeCounts
from ..nn.layers import charged
from ..nn.norms import follow, running_affine, uses_batch_statistics
from ..ops.differentiable_once import differentiable_once
from ..ops.integrate_fire import backward, backward_counted, forward
from ..ops.norm_fire import Normed, fire
from ..ops.tally import count
from .forms import Form


class PreparedLayer:
    """A layer whose form has been chosen; call it with the layer's input and residual.

    Attributes:
        form: how the product is computed.
        affine: the norm's scale and shift per channel with its running statistics; None for both where there is no norm
            or it uses the batch's.
    """

    def __init__(
        self,
        form: Form,
        conv: nn.Conv2d | nn.Linear,
        norm: nn.BatchNorm2d | None,
        neuron: IFNode | None,
        dtype: torch.dtype,
    ):
        self.form, self.conv, self.norm, self.dtype = form, conv, norm, dtype
        self.neuron = None if neuron is None else neuron.neuron
        self.drifts = norm is not None and uses_batch_statistics(norm)
        self.affine = (None, None) if norm is None or self.drifts else running_affine(norm)

    def __call__(
        self,
        x_seq: torch.Tensor,
        residual: torch.Tensor | None,
        junction: str | None,
        take_counts: TakeCounts | None = None,
    ) -> torch.Tensor:
        """[T, B, C, H, W] -> [T, B, planes, h, w]; see nn.spiking_layer, and in_force for what takes counts."""
        norm = (None, None) if self.norm is None else (self.norm.weight, self.norm.bias)
        return _Layer.apply(x_seq, residual, self.conv.weight, self.conv.bias, *norm, junction, self, take_counts)

    def fire(self, current: torch.Tensor, residual: torch.Tensor | None, junction: str | None):
        """Return the output of the layer, its neurons' input, and the batch's norm (None: there is none)."""
        norm = self.norm
        if self.neuron is None or junction == "current":
            batch = Normed(current, norm.weight, norm.bias, norm.eps) if self.drifts else None
            charge = charged(self._normed(current, batch), residual, junction)
            out = charge if self.neuron is None else forward(charge, None, None, None, None, None, self.neuron)
            out = out.to(current.dtype)  # the norm is computed in float32
        elif self.drifts:
            out, batch = fire(current, norm.weight, norm.bias, norm.eps, self.neuron, residual, junction)
            charge = current
        else:
            out, batch = forward(current, None, *self.affine, residual, junction, self.neuron), None
            charge = current
        if batch is not None:
            follow(norm, batch)
        return out, charge, batch

    def unfire(self, grad_out: torch.Tensor, charge, current, residual: torch.Tensor | None, junction, batch):
        """Return the gradients at current, norm weight, norm bias (None with running statistics) and residual.

        Args:
            grad_out: the gradient at the layer's output.
            charge: the neurons' input, None where there are no neurons.
            current: the norm's input, where that is a pass of its own with the batch's statistics.
            residual: None also for the junctions "add" and "current", which do not ask for it.
            junction: as forwards.
            batch: as `fire` returned it.
        """
        if self.neuron is not None and junction != "current":
            joined = None if residual is None else junction
            if batch is not None:
                *gradients, grad_residual = batch.backward(grad_out, charge, residual)
            else:
                inputs = (grad_out, charge, None, *self.affine, residual, joined, self.neuron)
                grad_current, _, grad_residual = backward(*inputs)
                gradients = (grad_current, None, None)
            if residual is None:
                grad_residual = grad_out if junction == "add" else None
            return *gradients, grad_residual
        grad = grad_out
        if self.neuron is not None:
            grad, _, _ = backward(grad_out.to(charge.dtype), charge, None, None, None, None, None, self.neuron)
        grad_residual = grad if junction == "current" else None
        if batch is not None:
            return *batch.backward(grad.clone(), current), grad_residual  # it may write into its argument
        scale = self.affine[0]
        return grad if scale is None else grad * _channels(scale), None, None, grad_residual

    def unfire_counted(self, grad_out: torch.Tensor, charge, current, residual, junction, batch):
        """Return what `unfire` does, and a LayerCounts of it."""
        T, B = grad_out.shape[:2]
        if self.neuron is not None and junction != "current":
            multiplies = None if residual is None else junction
            affine = self.affine if batch is None else (batch.scale, batch.shift)
            how = (residual, multiplies, self.neuron, batch is None)
            grad, grad_residual, counts = backward_counted(grad_out, charge, *affine, *how)
            spikes, behind_norm, product = counts
            gradients = (grad, None, None)
            if batch is not None:
                gradients = Normed.backward(batch, grad, charge)  # the neurons' own are done
                product = count(gradients[0], T, B)
            output = at_residual = spikes
            if multiplies is not None:
                output, at_residual = count(grad_out, T, B), count(grad_residual, T, B)
            elif junction == "add":
                grad_residual = grad_out
            return (*gradients, grad_residual), LayerCounts(output, spikes, behind_norm, product, at_residual)
        at_charge = grad_out
        if self.neuron is not None:
            at_charge, _, _ = backward(grad_out.to(charge.dtype), charge, None, None, None, None, None, self.neuron)
        output, behind_norm = count(grad_out, T, B), count(at_charge, T, B)
        if batch is not None:
            gradients = batch.backward(at_charge.clone(), current)  # it may write into its argument
        else:
            scale = self.affine[0]
            gradients = (at_charge if scale is None else at_charge * _channels(scale), None, None)
        grad_residual = at_charge if junction == "current" else None
        counts = LayerCounts(output, output, behind_norm, count(gradients[0], T, B), behind_norm)
        return (*gradients, grad_residual), counts

    def _normed(self, current: torch.Tensor, batch: Normed | None) -> torch.Tensor:
        scale, shift = self.affine if batch is None else (batch.scale, batch.shift)
        return current if scale is None else torch.addcmul(_channels(shift), current, _channels(scale))


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_seq, residual, weight, bias, norm_weight, norm_bias, junction, layer, take_counts):
        frames = _frames(x_seq, layer.dtype)
        current = _sequence(layer.form.forward(frames), x_seq)
        if residual is not None:
            residual = residual.to(current.dtype)
        out, charge, ctx.batch = layer.fire(current, residual, junction)
        ctx.layer, ctx.junction, ctx.dtype, ctx.take_counts = layer, junction, x_seq.dtype, take_counts
        ctx.save_for_backward(
            charge if layer.neuron is not None else None,
            current if ctx.batch is not None and charge is not current else None,
            None if junction in (None, "add", "current") else residual,
            frames if ctx.needs_input_grad[2] else None,  # only a weight's gradient asks for the layer's input
        )
        return out

    @staticmethod
    def backward(ctx, grad_out):
        with torch._C.DisableTorchFunction():
            return _Layer._backward(ctx, grad_out)

    @staticmethod
    def _backward(ctx, grad_out):
        *kept, frames = ctx.saved_tensors
        layer, needs = ctx.layer, ctx.needs_input_grad
        counts = None
        if ctx.take_counts is None:
            gradients = layer.unfire(grad_out, *kept, ctx.junction, ctx.batch)
        else:
            gradients, counts = layer.unfire_counted(grad_out, *kept, ctx.junction, ctx.batch)
        grad_current, grad_norm_weight, grad_norm_bias, grad_residual = gradients
        grad_frames = _frames(grad_current, layer.dtype)
        grad_x = grad_weight = grad_bias = None
        if needs[0]:
            grad_x = _sequence(layer.form.backward(grad_frames), grad_out).to(ctx.dtype)
        if counts is not None:
            ctx.take_counts(grad_out, counts, grad_x)
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
        return *differentiable_once("a prepared layer", gradients, grad_out, recorded), None, None, None


def _channels(values: torch.Tensor) -> torch.Tensor:
    """Give [C] the shape that broadcasts over [T, B, C, H, W]."""
    return values[:, None, None]


def _frames(x_seq: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[T, B, C, H, W] -> [T*B, H, W, C], dense: the order in memory that forms take; [T, B, C] -> [T*B, 1, 1, C]."""
    frames = x_seq.flatten(0, 1)
    frames = frames.permute(0, 2, 3, 1) if x_seq.dim() == 5 else frames[:, None, None]
    return frames.to(dtype).contiguous()


def _sequence(frames: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[T*B, H, W, C] -> [T, B, C, H, W], without a copy; [T*B, 1, 1, C] -> [T, B, C] where `like` has these axes."""
    frames = frames.permute(0, 3, 1, 2) if like.dim() == 5 else frames.flatten(1)
    return frames.view(*like.shape[:2], *frames.shape[1:])  # unflatten's checks take 2 us
