"""integrate_fire as an op of torch: schema, shapes for tracing, gradient, choice of backend.

Forward and backward are ops of their own (torch.library), so that torch.compile sees one node for each; the
autograd.Function outside them saves the input alone: h is recomputed. What each returns: reference.py.
"""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

from .. import backends, check, dispatcher, layout
from ..differentiable_once import differentiable_once
from .neuron import JUNCTIONS, Neuron

_TENSORS = "Tensor x_seq, Tensor? v_init, Tensor? scale, Tensor? shift, Tensor? residual, str? junction"
_NEURON = (
    "float v_threshold, float? v_reset, float? tau, bool decay_input, str surrogate, float alpha, bool detach_reset"
)
_LIBRARY = torch.library.Library("fastsnn", "FRAGMENT")
_LIBRARY.define(f"integrate_fire({_TENSORS}, {_NEURON}, str? backend) -> Tensor")
_LIBRARY.define(
    f"integrate_fire_backward(Tensor grad_out, {_TENSORS}, {_NEURON}, str? backend, bool through_affine)"
    " -> (Tensor, Tensor, Tensor)"
)


def integrate_fire(
    x_seq: torch.Tensor,
    neuron: Neuron,
    *,
    v_init: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    junction: str | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Check the tensors and run the op; see functional.integrate_fire for what they mean. `neuron` has been checked."""
    _check_tensors(x_seq, v_init, scale, shift, residual, junction)
    inputs = (x_seq, v_init, scale, shift, residual)
    if not torch.compiler.is_compiling() and forward_ad._current_level >= 0:
        _refuse_tangents(inputs)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs):
        function = _TransformableIntegrateFire if _is_transformed() else _IntegrateFire
        return function.apply(*inputs, junction, neuron, backend)
    return _run(*inputs, junction, neuron, backend)


def forward(x_seq, v_init, scale, shift, residual, junction, neuron: Neuron) -> torch.Tensor:
    """Check the tensors and run the op without a gradient; for who writes a gradient around it."""
    _check_tensors(x_seq, v_init, scale, shift, residual, junction)
    return _run(x_seq, v_init, scale, shift, residual, junction, neuron, None)


def backward(grad_out, x_seq, v_init, scale, shift, residual, junction, neuron: Neuron, through_affine: bool = True):
    """Run the gradient's op; see reference.backward for what it returns (None or empty for what there is not)."""
    inputs = (grad_out, x_seq, v_init, scale, shift, residual)
    return _run_backward(inputs, junction, neuron, None, through_affine)


class _IntegrateFire(torch.autograd.Function):
    """Saves the input (and what a junction needs); torch's plain form, 60 us a call cheaper than the one below."""

    @staticmethod
    def forward(ctx, *inputs):
        _remember(ctx, inputs, None)
        return _run(*inputs)

    @staticmethod
    def backward(ctx, grad_out):
        return _gradients(ctx, grad_out)


class _TransformableIntegrateFire(torch.autograd.Function):
    """The same for torch.func (vmap, grad), which maps the two ops over the new axis."""

    generate_vmap_rule = True
    forward = staticmethod(lambda *inputs: _run(*inputs))
    setup_context = staticmethod(lambda ctx, inputs, output: _remember(ctx, inputs, output))
    backward = _IntegrateFire.backward


def _refuse_tangents(inputs):
    """Raise where forward-mode differentiation asks for a tangent: the ops would answer with silent zeros."""
    if any(tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None for tensor in inputs):
        raise RuntimeError("integrate_fire has no forward-mode derivative (jvp); use reverse mode: grad, vjp, jacrev.")


def _is_transformed():
    """Ask what torch's own Function.apply asks; torch.compile traces the plain form."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def _run(x_seq, v_init, scale, shift, residual, junction, neuron, backend):
    call = _FORWARD if dispatcher.is_needed(x_seq, v_init, scale, shift, residual) else _forward
    return call(x_seq, v_init, scale, shift, residual, junction, *neuron, backend)


def _run_backward(inputs, junction, neuron, backend, through_affine):
    call = _BACKWARD if dispatcher.is_needed(*inputs) else _backward
    return call(*inputs, junction, *neuron, backend, through_affine)


def _remember(ctx, inputs, output):
    x_seq, v_init, scale, shift, residual, ctx.junction, ctx.neuron, ctx.backend = inputs
    needs_residual = ctx.junction not in (None, "add")
    ctx.save_for_backward(x_seq, v_init, scale, shift, residual if needs_residual else None)
    ctx.needs_affine = any(ctx.needs_input_grad[2:4])


def _gradients(ctx, grad_out):
    x_seq, v_init, scale, shift, residual = ctx.saved_tensors
    junction = None if residual is None else ctx.junction
    inputs = (grad_out, x_seq, v_init, scale, shift, residual)
    gradients = _run_backward(inputs, junction, ctx.neuron, ctx.backend, not ctx.needs_affine)
    grad_x, grad_v_init, grad_residual = gradients
    grad_scale = grad_shift = None
    if ctx.needs_affine:
        over = [axis for axis in range(x_seq.dim()) if axis != 2]
        grad_current = grad_x.float()
        grad_scale = (grad_current * x_seq.float()).sum(over).to(scale.dtype)
        grad_shift = grad_current.sum(over).to(shift.dtype)
        grad_x = (grad_current * scale.float().view(-1, *(1,) * (x_seq.dim() - 3))).to(x_seq.dtype)
    if residual is None:
        grad_residual = grad_out if ctx.junction == "add" else None
    grad_v_init = None if v_init is None else grad_v_init.to(v_init.dtype)
    gradients = (grad_x, grad_v_init, grad_scale, grad_shift, grad_residual)
    sources = (grad_out, x_seq, v_init, scale, shift, residual)
    return *differentiable_once("integrate_fire", gradients, *sources), None, None, None


def _backend(name: str | None, device: torch.device):
    # here, not in integrate_fire: torch.compile does not trace into an op
    return backends.implementation("integrate_fire", name, device)


def _forward(x_seq, v_init, scale, shift, residual, junction, *constants):
    *neuron, backend = constants
    x_seq = layout.dense(x_seq)
    return _backend(backend, x_seq.device).forward(x_seq, v_init, scale, shift, residual, junction, Neuron(*neuron))


def _backward(grad_out, x_seq, v_init, scale, shift, residual, junction, *constants):
    *neuron, backend, through_affine = constants
    x_seq = layout.dense(x_seq)
    inputs = (grad_out, x_seq, v_init, scale, shift, residual, junction, Neuron(*neuron), through_affine)
    grad_x, grad_v_init, grad_residual = _backend(backend, x_seq.device).backward(*inputs)
    if v_init is None:
        return grad_x, None, grad_residual
    return grad_x, layout.like(grad_v_init, torch.empty_like(x_seq[0], dtype=torch.float32)), grad_residual


def _backward_op(grad_out, *arguments):
    """Return empty tensors for what there is not: an op's outputs are tensors, and no two of them the same."""
    return tuple(grad_out.new_empty(0) if tensor is None else tensor for tensor in _backward(grad_out, *arguments))


def _forward_fake(x_seq, *_):
    return torch.empty_like(layout.dense(x_seq))


def _backward_fake(grad_out, x_seq, v_init, scale, shift, residual, junction, *_):
    x_seq = layout.dense(x_seq)
    return (
        torch.empty_like(x_seq),
        x_seq.new_empty(0) if v_init is None else torch.empty_like(x_seq[0], dtype=torch.float32),
        x_seq.new_empty(0) if junction in (None, "add") else torch.empty_like(x_seq),
    )


_LIBRARY.impl("integrate_fire", _forward, "CompositeExplicitAutograd")
_LIBRARY.impl("integrate_fire_backward", _backward_op, "CompositeExplicitAutograd")
torch.library.register_fake("fastsnn::integrate_fire", _forward_fake, lib=_LIBRARY)
torch.library.register_fake("fastsnn::integrate_fire_backward", _backward_fake, lib=_LIBRARY)
_FORWARD = torch.ops.fastsnn.integrate_fire.default
_BACKWARD = torch.ops.fastsnn.integrate_fire_backward.default


def _check_tensors(x_seq, v_init, scale, shift, residual, junction):
    check.tensor("x_seq", x_seq)
    if x_seq.dim() < 2:
        raise ValueError(f"x_seq has shape {list(x_seq.shape)}, expected at least [T, B]: time first, then the batch.")
    if x_seq.shape[0] == 0:
        raise ValueError(f"x_seq has shape {list(x_seq.shape)}: its time axis (the first) is empty, expected T >= 1.")
    if v_init is not None:
        check.companion("v_init", v_init, x_seq.shape[1:], "one step of x_seq", x_seq.device)
    if (scale is None) != (shift is None):
        raise ValueError(f"{'shift' if scale is None else 'scale'} came alone: scale and shift go together.")
    if scale is not None:
        if x_seq.dim() < 3:
            raise ValueError(f"x_seq has shape {list(x_seq.shape)}: scale and shift need channels, [T, B, C, ...].")
        check.companion("scale", scale, x_seq.shape[2:3], "the channels of x_seq", x_seq.device)
        check.companion("shift", shift, x_seq.shape[2:3], "the channels of x_seq", x_seq.device)
    if (residual is None) != (junction is None):
        raise ValueError(
            f"residual and junction go together; junction is {junction!r} and residual is "
            f"{'missing' if residual is None else 'given'}."
        )
    if residual is not None:
        check.one_of("junction", junction, JUNCTIONS)
        check.companion("residual", residual, x_seq.shape, "x_seq", x_seq.device)
        if residual.dtype != x_seq.dtype:
            raise TypeError(f"residual has dtype {residual.dtype}, expected that of x_seq, {x_seq.dtype}.")
