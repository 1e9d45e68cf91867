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
from .reference import unjoin


def backward_counted(
    grad_out: torch.Tensor,
    x_seq: torch.Tensor,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
    residual: torch.Tensor | None,
    junction: str | None,
    neuron: Neuron,
    through_affine: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None, tuple[Counts, Counts, Counts]]:
    """Return the gradients at x_seq [T, B, ...] and at the residual, bit for bit those of `backward`, and the counts.

    Args:
        grad_out: the gradient behind the junction, like x_seq.
        x_seq: the neurons' input, before its affine.
        scale: of the affine [C]; None for none.
        shift: of the affine [C]; None for none.
        residual: of a junction that multiplies; None for others.
        junction: "and", "iand" or "and_not" with a residual, else None.
        neuron: constants of the neurons.
        through_affine: whether the gradient at x_seq goes through the affine, or ends behind it.

    Returns:
        Both gradients (None without a residual), and the counts of the gradient at the spikes, of that behind the
        affine, and of the first of both.
    """
    T, B = x_seq.shape[:2]
    x_seq = layout.dense(x_seq)
    inputs = (grad_out, x_seq, None, scale, shift, residual, junction, neuron)
    if x_seq.is_cpu and x_seq.dtype == torch.float32 and x_seq.numel() and not library.unavailable():
        table = torch.empty(3, T, B, 4, dtype=torch.float64, device="cpu")
        grad_x, _, grad_residual = compiled.backward(cpu.run, *inputs, through_affine, None, table, B)
        numbers = x_seq.numel() // (T * B)
        return grad_x, grad_residual, tuple(Counts(table, place, numbers) for place in range(3))
    at_current, _, grad_residual = backward(*inputs, through_affine=False)
    at_spikes = grad_out if residual is None else unjoin(grad_out.float(), 0.0, residual.float(), junction)[0]
    grad_x = at_current
    if scale is not None and through_affine:
        grad_x = (at_current.float() * scale.float().view(-1, *(1,) * (x_seq.dim() - 3))).to(x_seq.dtype)
    return grad_x, grad_residual, tuple(count(gradient, T, B) for gradient in (at_spikes, at_current, grad_x))
