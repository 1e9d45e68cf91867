"""The backward pass of neurons that counts what it has at hand: gradients at the spikes, at the current, and at x.

On a CPU in float32 the kernel counts rows while they lie in the first-level cache; elsewhere it is a pass for each.
"""

from __future__ import annotations

import torch

from .. import layout, library
from ..tally import Counts, count
from . import compiled, cpu
from .neuron import Neuron
from .op import backward


def backward_counted(
    grad_out: torch.Tensor,
    x_seq: torch.Tensor,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
    neuron: Neuron,
) -> tuple[torch.Tensor, tuple[Counts, Counts, Counts]]:
    """Return the gradient at x_seq [T, B, ...], bit for bit that of `backward`, and what was counted.

    Args:
        grad_out: the gradient at the spikes, like x_seq.
        x_seq: the neurons' input, before its affine.
        scale: of the affine [C]; None for none.
        shift: of the affine [C]; None for none.
        neuron: constants of the neurons.

    Returns:
        grad_x, and the counts of grad_out, of the gradient behind the affine, and of grad_x.
    """
    T, B = x_seq.shape[:2]
    x_seq = layout.dense(x_seq)
    if x_seq.is_cpu and x_seq.dtype == torch.float32 and x_seq.numel() and not library.unavailable():
        sums = x_seq.new_empty(3, T, B, 4, dtype=torch.float64)
        inputs = (grad_out, x_seq, None, scale, shift, None, None, neuron, True)
        grad_x, _, _ = compiled.backward(cpu.run, *inputs, None, sums, B)
        return grad_x, tuple(Counts(one, x_seq[0, 0].numel()) for one in sums)
    at_current, _, _ = backward(grad_out, x_seq, None, scale, shift, None, None, neuron, through_affine=False)
    grad_x = at_current
    if scale is not None:
        grad_x = (at_current.float() * scale.float().view(-1, *(1,) * (x_seq.dim() - 3))).to(x_seq.dtype)
    return grad_x, tuple(count(gradient, T, B) for gradient in (grad_out, at_current, grad_x))
