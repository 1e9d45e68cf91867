"""Gradient sparsity, layer by layer: exact zeros and norms of the loss gradient, as in the paper's figures 3 and 5.

    zeros(layer, side) = share of numbers that are exactly 0 in dL/d(input) or dL/d(output) of the layer

over batches, time steps, and the steps of an attack if one is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from ..attacks.gradient import check_input
from ..attacks.input_gradient import input_gradient
from ..engine import Prepared
from ..ops import check
from .table import LayerGradient, Sparsity
from .tally import Seen
from .watching import Watched, watching

Batch = tuple[torch.Tensor, torch.Tensor]


def gradient_sparsity(
    network: nn.Module,
    x: torch.Tensor | Iterable[Batch],
    y: torch.Tensor | None = None,
    *,
    attack: Callable[[torch.Tensor, torch.Tensor], object] | None = None,
    per_step: bool = False,
    underflow: bool = True,
    bn: str = "frozen",
    precision: str = "fp32",
    engine: str | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Sparsity:
    """Return the zeros and norms of the loss gradient at the input and output of every layer (the paper's figure 3).

    The gradient is that of the summed cross-entropy; the layers run as modules of their own, also those that the engine
    would fuse, and are those that plain full backward hooks would see. What goes in at a place from which two layers
    read is told apart: a layer's row holds what comes back through that layer.

    Underflow is told from structure by repeating the backward pass on the same graph, with each sample's gradient at
    the logits taken from a softmax in float64 and scaled by a power of two to about 2^63: nothing is rounded otherwise,
    and a number must now be 2^-212 of the largest at the logits to vanish (2^-149 in absolute terms before).

    Args:
        network: from encoded input or images to logits [B, classes]; left as it was found, as by an attack.
        x: encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1]; or an iterable of batches (x, y),
            read once, whose memory is given back batch by batch.
        y: labels [B]; None with an iterable.
        attack: called with x and y; all backward passes that it makes through `network` are averaged. E.g.
            attacks.PGD(network, eps=6/255, alpha=0.01, steps=7), or another library's; its bn and precision are its own
            affair, and norms are those of its loss (a mean over the batch divides them by B). None takes the gradient
            at x itself.
        per_step: also give a row for each time step.
        underflow: tell underflow from structural zeros by a second backward pass; False leaves NaN in those columns.
        bn: without an attack, "frozen", "batch" or "drift"; see attacks.fgsm.
        precision: without an attack, "reference" or "fp32"; see nn.precision. "fast" rounds in fused layers, of which
            there are none here.
        engine: None for hooks on the plain layers, exact and slow; "auto" for the engine's layers, which count as they
            write gradients. Their sums are other ones, so that a spike at the edge may fall otherwise; on the same
            gradients zeros are the same, norms within 1e-6. For networks made of nn.spiking_layer; an attack must
            leave its own engine at "auto".
        on_batch: called after each batch with its number of samples.

    Returns:
        Rows in the order in which layers are called; with per_step, a layer's time steps follow its row.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it. Also if the attack makes no backward pass
            through the network, or if gradients grow from the logits to a layer by more than 2^64.
    """
    network = network.network if isinstance(network, Prepared) else network
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"network is of type {type(network).__name__}, expected a torch.nn.Module, whose layers are watched."
        )
    if attack is not None and not callable(attack):
        raise TypeError(f"attack is {attack!r}, expected a function of x and y such as attacks.PGD(network), or None.")
    check.one_of("precision", precision, ("reference", "fp32"))
    if engine is not None:
        check.one_of("engine", engine, ("auto",))
    batches = 0
    with watching(network, underflow=underflow, in_kernels=engine is not None) as watched:
        for batch_x, batch_y in _batches(x, y):
            check_input(batch_x, batch_y)
            if not batch_y.numel():
                raise ValueError(f"x has shape {list(batch_x.shape)}: there is no sample in it.")
            watched.labelled(batch_y)
            if attack is not None:
                attack(batch_x, batch_y)
            else:
                with input_gradient(network, bn=bn, precision=precision, engine=engine) as gradient:
                    at = batch_x.clone() if batch_x.is_inference() else batch_x
                    gradient(at, batch_y.to(torch.int64, copy=True))
            batches += 1
            if on_batch is not None:
                on_batch(len(batch_y))
    if batches == 0:
        raise ValueError("x holds no batch, expected at least one.")
    seen = watched.read()
    passes = seen[0].passes[0] if seen else 0  # at x, the first side of all
    if not passes:
        raise ValueError(
            "attack made no backward pass through network; expected an attack on this very module, and samples that it "
            "attacks: some leave alone what is wrong without them."
        )
    if engine is not None and (uncounted := watched.uncounted(seen)):
        names = ", ".join([*uncounted[:3], *(("...",) if uncounted[3:] else ())])
        raise ValueError(f"network has layers ({names}) that no engine computed and counted; expected engine=None.")
    if not all(one.finite for one in seen):
        raise ValueError(
            "gradients grow by more than 2^64 from the logits to a layer; expected less, or underflow=False."
        )
    return Sparsity(_rows(watched, seen, per_step), seen[0].samples[0], passes)


def _batches(x: torch.Tensor | Iterable[Batch], y: torch.Tensor | None) -> Iterator[Batch]:
    if isinstance(x, torch.Tensor):
        if y is None:
            raise ValueError("y is None, expected labels [B] with a tensor x.")
        yield x, y
        return
    if y is not None:
        raise ValueError("y is given with an iterable x, expected None: every batch has its own labels.")
    yield from x


def _rows(watched: Watched, seen: list[Seen], per_step: bool) -> Iterator[LayerGradient]:
    columns = torch.cat([one.columns for one in seen])  # [sides, T + 1, 5]
    values = columns.unflatten(0, (-1, 2)).permute(0, 2, 3, 1).flatten(2).tolist()  # each as (at input, at output)
    for layer, each in zip(watched.sides, values, strict=True):
        kind = watched.kinds[layer]
        yield LayerGradient(layer, kind, None, *map(_one_nan, each[-1]))
        if per_step:
            yield from (LayerGradient(layer, kind, t, *map(_one_nan, step)) for t, step in enumerate(each[:-1]))


def _one_nan(value: float) -> float:
    """Return the value, and for NaN always the same: rows with it are equal then."""
    return value if value == value else math.nan
