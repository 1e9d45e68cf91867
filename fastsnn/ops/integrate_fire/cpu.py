"""integrate_fire on a CPU: hands pointers to csrc/cpu/integrate_fire.inl. Specification: reference.py.

Reads and writes 4 bytes per neuron and step forward, 12 backward (float32); h is recomputed, never stored in memory.
float16 goes through float32, in which the kernel computes anyway.
"""

from __future__ import annotations

import torch

from .. import layout, library
from .neuron import JUNCTIONS, SURROGATES, Neuron

_STORAGE = {torch.float32: 0, torch.bfloat16: 1}


def forward(x_seq, v_init, scale, shift, residual, junction, neuron: Neuron) -> torch.Tensor:
    """See reference.forward."""
    if x_seq.dtype not in _STORAGE:
        wide = None if residual is None else residual.float()
        return forward(x_seq.float(), v_init, scale, shift, wide, junction, neuron).to(x_seq.dtype)
    out = torch.empty_like(x_seq)
    if x_seq.numel():
        arguments = _arguments(x_seq, v_init, scale, shift, residual, junction, neuron)
        library.run("integrate_fire_forward", out=out, **arguments)
    return out


def backward(grad_out, x_seq, v_init, scale, shift, residual, junction, neuron: Neuron, through_affine: bool):
    """See reference.backward."""
    if x_seq.dtype not in _STORAGE:
        wide = None if residual is None else residual.float()
        inputs = (grad_out.float(), x_seq.float(), v_init, scale, shift, wide)
        grad_x, grad_v_init, grad_residual = backward(*inputs, junction, neuron, through_affine)
        narrow = None if grad_residual is None else grad_residual.to(x_seq.dtype)
        return grad_x.to(x_seq.dtype), grad_v_init, narrow
    grad_out = layout.like(grad_out, x_seq)
    grad_x = torch.empty_like(x_seq)
    grad_v_init = torch.empty_like(x_seq[0], dtype=torch.float32)
    grad_residual = None if junction in (None, "add") else torch.empty_like(x_seq)
    if x_seq.numel():
        arguments = _arguments(x_seq, v_init, scale, shift, residual, junction, neuron)
        arguments.update(grad_out=grad_out, grad_x=grad_x, grad_v_init=grad_v_init, grad_residual=grad_residual)
        library.run("integrate_fire_backward", through_affine=through_affine, **arguments)
    return grad_x, grad_v_init, grad_residual


def _arguments(x_seq, v_init, scale, shift, residual, junction, neuron):
    def float32(tensor, model=None):
        if tensor is None:
            return None
        return tensor.float().contiguous() if model is None else layout.like(tensor, model)

    return {
        "x": x_seq,
        "v_init": float32(v_init, None if v_init is None else torch.empty_like(x_seq[0], dtype=torch.float32)),
        "scale": float32(scale),
        "shift": float32(shift),
        "residual": None if residual is None else layout.like(residual, x_seq),
        "steps": x_seq.shape[0],
        "neurons": x_seq[0].numel(),
        "channels": 1 if scale is None else scale.numel(),
        "channel_inner": 1 if scale is None else layout.channel_inner(x_seq),
        "storage": _STORAGE[x_seq.dtype],
        "charge": 0 if neuron.tau is None else 1 if neuron.decay_input else 2,
        "junction": 0 if junction is None else 1 + JUNCTIONS.index(junction),
        "surrogate": SURROGATES.index(neuron.surrogate),
        "v_threshold": neuron.v_threshold,
        "v_reset": neuron.v_rest,
        "tau": neuron.tau or 0.0,
        "alpha": neuron.alpha,
        "hard_reset": neuron.v_reset is not None,
        "detach_reset": neuron.detach_reset,
    }
