"""integrate_fire as the kernels in C++ and in CUDA C++ take it: dense tensors and one struct of pointers and numbers.

`run(kernel, arguments)` launches "forward" or "backward".
"""

from __future__ import annotations

import functools

import torch

from .. import layout, library
from .aligned import aligned
from .neuron import JUNCTIONS, SURROGATES, Neuron

STORAGES = (torch.float32, torch.bfloat16, torch.float16)  # in the order of `enum Storage` in csrc/arguments.h


def forward(run, x_seq, v_init, scale, shift, residual, junction, neuron: Neuron) -> torch.Tensor:
    """See reference.forward."""
    out = torch.empty_like(x_seq)
    if x_seq.numel():
        inputs = aligned(x_seq, v_init, scale, shift, residual)
        run("forward", _arguments(inputs, (out,), junction, neuron, True))
    return out


def backward(
    run, grad_out, x_seq, v_init, scale, shift, residual, junction, neuron, through_affine, notes, tally, samples=0
):
    """See reference.backward; `notes`, `tally` and `samples` are what csrc/arguments.h says, or None and 0."""
    grad_x = torch.empty_like(x_seq)
    grad_v_init = None if v_init is None else torch.empty_like(x_seq[0], dtype=torch.float32)
    grad_residual = None if junction in (None, "add") else torch.empty_like(x_seq)
    if x_seq.numel():
        inputs = aligned(x_seq, v_init, scale, shift, residual)
        outputs = (None, layout.like(grad_out, x_seq), grad_x, grad_v_init, grad_residual, notes, tally)
        run("backward", _arguments(inputs, outputs, junction, neuron, through_affine, samples))
    return grad_x, grad_v_init, grad_residual


def _arguments(inputs, outputs, junction, neuron, through_affine, samples=0):
    x_seq, _, scale, _, _ = inputs
    tensors = (*inputs, *outputs, *(None for _ in range(7 - len(outputs))))
    return library.IntegrateFireArguments(
        *map(library.address, tensors),
        x_seq.shape[0],  # steps
        x_seq.numel() // x_seq.shape[0],  # neurons
        1 if scale is None else scale.numel(),  # channels
        1 if scale is None else layout.channel_inner(x_seq),
        samples,
        *_constants(x_seq.dtype, junction, neuron),
        through_affine,
    )


@functools.lru_cache
def _constants(storage: torch.dtype, junction: str | None, neuron: Neuron) -> tuple:
    return (
        neuron.alpha,
        neuron.v_threshold,
        neuron.v_rest,
        neuron.tau or 0.0,
        STORAGES.index(storage),
        0 if neuron.tau is None else 1 if neuron.decay_input else 2,  # charge
        0 if junction is None else 1 + JUNCTIONS.index(junction),
        SURROGATES.index(neuron.surrogate),
        neuron.v_reset is not None,  # hard reset
        neuron.detach_reset,
    )
