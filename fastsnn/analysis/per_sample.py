"""Gradients of one sample at a time, at its input and at chosen weights, as the theorems on them ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..attacks.gradient import check_input, check_labels
from ..engine.under_attack import under_attack
from ..nn import precision as in_precision
from ..ops.attack_step import default_batch_axis


def per_sample(
    network: nn.Module, x: torch.Tensor, y: torch.Tensor, weights: Sequence[nn.Parameter], precision: str = "fp32"
) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
    """Yield, sample by sample, the gradient of the cross-entropy at x (a batch of one) and at each of `weights`.

    Args:
        network: from x to logits; in eval mode meanwhile, and left as it was found.
        x: encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1], with at least one sample.
        y: labels [B].
        weights: parameters of network.
        precision: see nn.precision.

    Raises:
        ValueError, TypeError: x or y is wrong; the message names it.
    """
    check_input(x, y)
    if not y.numel():
        raise ValueError(f"x has shape {list(x.shape)}: there is no sample in it.")
    with torch.inference_mode(False), torch.enable_grad(), under_attack(network, "frozen"), in_precision(precision):
        try:
            for weight in weights:
                weight.requires_grad_(True)
            for sample, label in zip(x.split(1, default_batch_axis(x)), y.to(torch.int64).split(1), strict=True):
                leaf = sample.detach().clone().requires_grad_()
                logits = network(leaf)
                check_labels(label, logits.shape[1])
                loss = cross_entropy(logits.float(), label.clone())
                at_x, *at_weights = torch.autograd.grad(loss, [leaf, *weights])
                yield at_x, at_weights
        finally:
            for weight in weights:  # under_attack gives those that asked for gradients before their flag back
                weight.requires_grad_(False)


def weighted_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return the convolutions and linear layers, by name, in the order in which they were added to the network."""
    return {name: module for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
