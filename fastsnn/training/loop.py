"""The paper's training loop: coded images, Adam, cross-entropy of the logits' mean over time.

    x = encode(images);  loss = cross_entropy(net(x), labels);  one Adam step

The same seed on the same machine with the same number of threads gives the same weights, bit for bit. Another number of
threads does not: torch adds up the gradients of convolution weights and of batch norm in another order. Nor need a GPU
repeat itself: some of torch's backward kernels add in whatever order their threads arrive.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..engine import prepare
from ..nn import PhaseEncoder, precision
from ..ops import check

SCHEDULES = ("constant", "cosine")


class Batch(NamedTuple):
    """What `train` tells after every batch.

    Attributes:
        epoch: 1 to epochs.
        images: how many images it held.
        loss: its cross-entropy, a tensor on the network's device (reading it waits for a GPU).
    """

    epoch: int
    images: int
    loss: torch.Tensor


def train(
    net: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    epochs: int,
    batch_size: int,
    lr: float = 1e-3,
    schedule: str = "constant",
    weight_decay: float = 1e-3,
    T: int = 10,
    K: int = 8,
    encode: Callable[[torch.Tensor], torch.Tensor] | None = None,
    seed: int,
    on_batch: Callable[[Batch], None] | None = None,
) -> list[float]:
    """Train a network in place on coded images, and leave it in eval mode.

    Args:
        net: from encoded input [T, B, C, H, W] to logits [B, classes]; trained on the device where it is.
        images: uint8 [N, C, H, W], on any device; batches move to the network's; or what `encode` takes.
        labels: int64 [N], 0 to classes - 1.
        epochs: passes over the images, at least 1.
        batch_size: images per step, at least 1; the last batch of an epoch holds what is left.
        lr: Adam's learning rate, above 0; 1e-3 as in the paper's code.
        schedule: "constant", as in the paper's code, or "cosine": lr falls to 0 along half a cosine, step by step.
        weight_decay: L2 penalty in Adam's gradient, at least 0; 1e-3 as in the paper's code.
        T: time steps of the phase code; 10 as in the paper.
        K: phases of the phase code; 8 as in the paper.
        encode: from a batch of images to encoded input, an encoder of fastsnn.nn; None is the phase code of T and K.
        seed: of the order of the images, which a generator of its own draws: torch's global one is not touched.
        on_batch: called after every batch.

    Returns:
        The mean loss of every epoch.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
        FloatingPointError: the loss is no longer finite.
    """
    _check_images(images, labels, coded=encode is not None)
    encode = encode or PhaseEncoder(T, K)
    check.integer("epochs", epochs, at_least=1)
    check.integer("batch_size", batch_size, at_least=1)
    check.number("lr", lr, above=0)
    check.one_of("schedule", schedule, SCHEDULES)
    check.number("weight_decay", weight_decay, at_least=0)
    generator = torch.Generator().manual_seed(check.integer("seed", seed, at_least=0, at_most=2**63 - 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, weight_decay=weight_decay)
    steps = epochs * math.ceil(len(images) / batch_size)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if schedule == "cosine" else None
    device, highest_label = _device(net), int(labels.max())
    network, losses = prepare(net), []
    with _deterministic_cudnn(), precision("fp32"):
        for epoch in range(1, epochs + 1):
            net.train()
            summed = torch.zeros((), device=device)
            for chosen in torch.randperm(len(images), generator=generator).split(batch_size):
                x, y = encode(images[chosen].to(device)), labels[chosen].to(device)
                logits = network(x)
                if highest_label >= logits.shape[1]:  # a GPU would abort the process
                    raise ValueError(f"labels go up to {highest_label}, but net has {logits.shape[1]} classes.")
                loss = F.cross_entropy(logits, y)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                if decay is not None:
                    decay.step()
                summed += loss.detach() * len(chosen)
                if on_batch is not None:
                    on_batch(Batch(epoch, len(chosen), loss.detach()))
            losses.append(summed.item() / len(images))
            if not summed.isfinite():
                raise FloatingPointError(f"The training loss is {losses[-1]} in epoch {epoch}; try an lr below {lr:g}.")
    net.eval()
    return losses


def evaluate(
    net: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    batch_size: int = 64,
    T: int = 10,
    K: int = 8,
    encode: Callable[[torch.Tensor], torch.Tensor] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> float:
    """Return the share of coded images that a network classifies rightly, 0 to 1, in eval mode.

    Args:
        net: from encoded input [T, B, C, H, W] to logits [B, classes]; left in the mode it was in.
        images: uint8 [N, C, H, W], or what `encode` takes.
        labels: int64 [N].
        batch_size: images per pass, at least 1; it changes the memory needed, not the answer.
        T: time steps of the phase code.
        K: phases of the phase code.
        encode: from a batch of images to encoded input; None is the phase code of T and K.
        on_batch: called after every batch with its number of images.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
    """
    _check_images(images, labels, coded=encode is not None)
    encode = encode or PhaseEncoder(T, K)
    check.integer("batch_size", batch_size, at_least=1)
    device, correct = _device(net), 0
    for some, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        correct += count_correct(net, encode(some.to(device)), y.to(device))
        if on_batch is not None:
            on_batch(len(y))
    return correct / len(images)


def count_correct(net: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> int:
    """Return how many of the inputs x (what net takes) are classified as their labels [B], in eval mode."""
    with _in_eval(net), torch.no_grad():
        return int((net(x).argmax(1) == labels).sum())


def _check_images(images: torch.Tensor, labels: torch.Tensor, *, coded: bool) -> None:
    check.tensor("images", images, (torch.uint8,))
    check.tensor("labels", labels, (torch.int64,))
    if (images.dim() != 4 and not coded) or not len(images):
        raise ValueError(f"images has shape {list(images.shape)}, expected [N, C, H, W] with N of at least 1.")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels has shape {list(labels.shape)}, expected [{len(images)}], one for each of images.")
    if labels.min() < 0:
        raise ValueError(f"labels holds {int(labels.min())}, expected classes from 0 up.")


def _device(net: nn.Module) -> torch.device:
    return next(net.parameters()).device


@contextlib.contextmanager
def _in_eval(net: nn.Module) -> Iterator[None]:
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def _deterministic_cudnn() -> Iterator[None]:
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
