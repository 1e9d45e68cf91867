"""integrate_fire on a GPU: hands pointers to csrc/cuda/integrate_fire.cu. Specification: reference.py."""

from __future__ import annotations

import functools

import torch

from .. import cuda_units, gpu, library
from . import compiled
from .neuron import Neuron


def forward(x_seq, v_init, scale, shift, residual, junction, neuron: Neuron) -> torch.Tensor:
    """See reference.forward."""
    run = functools.partial(_run, x_seq.device)
    return compiled.forward(run, x_seq, v_init, scale, shift, residual, junction, neuron)


def backward(
    grad_out,
    x_seq,
    v_init,
    scale,
    shift,
    residual,
    junction,
    neuron: Neuron,
    through_affine: bool,
    tally: torch.Tensor | None = None,
):
    """See reference.backward; on request also counts: see `empty_tally`."""
    T, step = x_seq.shape[0], x_seq.shape[1:]
    before_last = -(-T // cuda_units.span(T)) - 1
    notes = x_seq.new_empty((before_last, *step), dtype=torch.float32) if before_last else None
    inputs = (grad_out, x_seq, v_init, scale, shift, residual)
    run = functools.partial(_run, x_seq.device)
    return compiled.backward(run, *inputs, junction, neuron, through_affine, notes, tally)


def empty_tally(x_seq: torch.Tensor) -> torch.Tensor:
    """Return memory for what `backward` can count of grad_x as it writes it, at no extra pass.

    [blocks, 4] float64: nonzero numbers, L1, squared L2, and Linf of each block's part; their sums (the last one's
    maximum) over blocks are those of grad_x, the same at every run.
    """
    return x_seq.new_zeros((gpu.blocks(x_seq[0].numel(), 1), 4), dtype=torch.float64)  # wide kernels need fewer blocks


def _run(device: torch.device, kernel: str, arguments: library.IntegrateFireArguments) -> None:
    unit = cuda_units.integrate_fire(arguments.storage, arguments.steps, arguments.surrogate, arguments.charge > 0)
    width = cuda_units.PACK // list(cuda_units.STORAGES.values())[arguments.storage]
    gpu.launch(unit, kernel, arguments, arguments.neurons, width, device)
