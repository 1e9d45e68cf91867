"""Gradients that refuse to be differentiated again: silence would be a wrong second derivative."""

from __future__ import annotations

import torch


def differentiable_once(op: str, gradients: tuple[torch.Tensor | None, ...], *sources: torch.Tensor | None):
    """Return `gradients`; where they are being recorded (create_graph=True), differentiating them raises.

    Args:
        op: name for the message.
        gradients: what a backward pass returns; None stays None.
        sources: the tensors that the gradients depend on.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return gradients
    sources = tuple(source for source in sources if source is not None and source.requires_grad)
    return tuple(None if gradient is None else _Once.apply(gradient, op, *sources) for gradient in gradients)


class _Once(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(gradient, op, *sources):
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.op = inputs[1]

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError(
            f"{ctx.op} is differentiable once: its surrogate gradient has no derivative of its own. Second derivatives "
            "(create_graph=True and another backward pass) need a smooth model of the neuron."
        )
