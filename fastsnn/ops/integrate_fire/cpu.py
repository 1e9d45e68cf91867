"""integrate_fire on a CPU: hands pointers to csrc/cpu/integrate_fire.inl. Specification: reference.py.

Reads and writes 4 bytes per neuron and step forward, 12 backward (float32); h is recomputed, never stored in memory.
float16 goes through float32, in which the kernel computes anyway.
"""

from __future__ import annotations

import torch

from .. import library
from . import compiled
from .neuron import Neuron


def forward(x_seq, v_init, scale, shift, residual, junction, neuron: Neuron) -> torch.Tensor:
    """See reference.forward."""
    if x_seq.dtype == torch.float16:
        wide = None if residual is None else residual.float()
        return forward(x_seq.float(), v_init, scale, shift, wide, junction, neuron).to(x_seq.dtype)
    return compiled.forward(run, x_seq, v_init, scale, shift, residual, junction, neuron)


def backward(grad_out, x_seq, v_init, scale, shift, residual, junction, neuron: Neuron, through_affine: bool):
    """See reference.backward."""
    if x_seq.dtype == torch.float16:
        wide = None if residual is None else residual.float()
        inputs = (grad_out.float(), x_seq.float(), v_init, scale, shift, wide)
        grad_x, grad_v_init, grad_residual = backward(*inputs, junction, neuron, through_affine)
        narrow = None if grad_residual is None else grad_residual.to(x_seq.dtype)
        return grad_x.to(x_seq.dtype), grad_v_init, narrow
    inputs = (grad_out, x_seq, v_init, scale, shift, residual)
    return compiled.backward(run, *inputs, junction, neuron, through_affine, None, None)


def run(kernel: str, arguments: library.IntegrateFireArguments) -> None:
    """Run "forward" or "backward"."""
    library.run(f"integrate_fire_{kernel}", arguments)
