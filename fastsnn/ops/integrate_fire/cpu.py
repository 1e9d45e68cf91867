"""integrate_fire on a CPU: hands pointers to csrc/cpu/integrate_fire.inl. Specification: reference.py.

Reads and writes 4 bytes per neuron and step forward, 12 backward (float32); h is recomputed, never stored in memory.
float16 goes through float32, in which the kernel computes anyway.
"""

from __future__ import annotations

import torch

from .. import layout, library
from .aligned import aligned
from .neuron import JUNCTIONS, SURROGATES, Neuron

_STORAGE = {torch.float32: 0, torch.bfloat16: 1}


def forward(x_seq, v_init, scale, shift, residual, junction, neuron: Neuron) -> torch.Tensor:
    """See reference.forward."""
    if x_seq.dtype not in _STORAGE:
        wide = None if residual is None else residual.float()
        return forward(x_seq.float(), v_init, scale, shift, wide, junction, neuron).to(x_seq.dtype)
    out = torch.empty_like(x_seq)
    if x_seq.numel():
        inputs = aligned(x_seq, v_init, scale, shift, residual)
        library.run("integrate_fire_forward", _arguments(inputs, (out, None, None, None, None), junction, neuron, True))
    return out


def backward(grad_out, x_seq, v_init, scale, shift, residual, junction, neuron: Neuron, through_affine: bool):
    """See reference.backward."""
    if x_seq.dtype not in _STORAGE:
        wide = None if residual is None else residual.float()
        inputs = (grad_out.float(), x_seq.float(), v_init, scale, shift, wide)
        grad_x, grad_v_init, grad_residual = backward(*inputs, junction, neuron, through_affine)
        narrow = None if grad_residual is None else grad_residual.to(x_seq.dtype)
        return grad_x.to(x_seq.dtype), grad_v_init, narrow
    grad_x = torch.empty_like(x_seq)
    grad_v_init = None if v_init is None else torch.empty_like(x_seq[0], dtype=torch.float32)
    grad_residual = None if junction in (None, "add") else torch.empty_like(x_seq)
    if x_seq.numel():
        inputs = aligned(x_seq, v_init, scale, shift, residual)
        outputs = (None, layout.like(grad_out, x_seq), grad_x, grad_v_init, grad_residual)
        arguments = _arguments(inputs, outputs, junction, neuron, through_affine)
        library.run("integrate_fire_backward", arguments)
    return grad_x, grad_v_init, grad_residual


def _arguments(inputs, outputs, junction, neuron, through_affine):
    x_seq, _, scale, _, _ = inputs
    return library.IntegrateFireArguments(
        *[None if tensor is None else tensor.data_ptr() for tensor in (*inputs, *outputs)],
        x_seq.shape[0],  # steps
        x_seq.numel() // x_seq.shape[0],  # neurons
        1 if scale is None else scale.numel(),  # channels
        1 if scale is None else layout.channel_inner(x_seq),
        neuron.alpha,
        neuron.v_threshold,
        neuron.v_rest,
        neuron.tau or 0.0,
        _STORAGE[x_seq.dtype],
        0 if neuron.tau is None else 1 if neuron.decay_input else 2,  # charge
        0 if junction is None else 1 + JUNCTIONS.index(junction),
        SURROGATES.index(neuron.surrogate),
        neuron.v_reset is not None,  # hard reset
        neuron.detach_reset,
        through_affine,
    )
