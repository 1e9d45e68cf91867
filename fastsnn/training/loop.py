"""The paper's training loop: coded images, Adam, cross-entropy of the logits' mean over time.

    x = encode(images);  loss = cross_entropy(net(x), labels);  one Adam step

`Trainer` goes on epoch by epoch and can be saved in between; `train` runs all of them. A defence (defences.py) replaces
what is done with a batch.

The same seed on the same machine with the same number of threads gives the same weights, bit for bit. Another number of
threads does not: torch adds up the gradients of convolution weights and of batch norm in another order. Nor need a GPU
repeat itself: some of torch's backward kernels add in whatever order their threads arrive.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from ..engine import prepare
from ..nn import PhaseEncoder, learned_neurons
from ..nn import precision as in_precision
from ..nn.precision import IN_TRAINING
from ..ops import check
from .learner import Defence, Learner, undefended
from .ranks import Ranks

SCHEDULES = ("constant", "cosine")
OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": lambda *given, **how: torch.optim.SGD(*given, momentum=0.9, **how)}
_SALTS = {"flips": 0x666C6970, "defence": 0x64656665}  # a seed gives them other numbers than it gives the order


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


class Trainer:
    """Trains a network epoch by epoch; between epochs its state can be saved, and loaded by another of the same making.

    Args:
        net: from encoded input [T, B, C, H, W] to logits [B, classes]; trained in place on the device where it is.
        images: uint8 [N, C, H, W], on any device; batches move to the network's; or what `encode` takes.
        labels: int64 [N], 0 to classes - 1.
        epochs: passes over the images in all, at least 1; a cosine ends with them.
        batch_size: images per step, at least 1; the last batch of an epoch holds what is left.
        lr: learning rate, above 0; 1e-3 as in the paper's code.
        schedule: "constant", as in the paper's code, or "cosine": lr falls to 0 along half a cosine, step by step.
        weight_decay: L2 penalty in the gradient, at least 0; 1e-3 as in the paper's code.
        optimizer: "adam", as in the paper's code, or "sgd" with momentum 0.9, as in SNN-RAT's.
        precision: "fp32", or "bf16": products of spikes and weights rounded to bfloat16, see nn.precision; weights, the
            optimizer and membranes are float32 in both. bfloat16 has float32's range, so no loss is scaled.
        flips: turn every image left to right with probability 1/2, as in the paper's code.
        encode: from a batch of images to encoded input, an encoder of fastsnn.nn; by default the phase code.
        defence: what is done with a batch, see defences.py; None descends the cross-entropy.
        seed: of the order of the images, flips, and a defence's random numbers, from generators of their own: torch's
            global one is not touched.
        ranks: the processes that share each batch, see ranks.py; by default this one alone.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.

    Attributes:
        losses: the mean loss of every epoch so far.
    """

    def __init__(
        self,
        net: nn.Module,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        epochs: int,
        batch_size: int,
        lr: float = 1e-3,
        schedule: str = "constant",
        weight_decay: float = 1e-3,
        optimizer: str = "adam",
        precision: str = "fp32",
        flips: bool = False,
        encode: Callable[[torch.Tensor], torch.Tensor] | None = None,
        defence: Defence | None = None,
        seed: int,
        ranks: Ranks | None = None,
    ):
        _check_images(images, labels, coded=encode is not None)
        self.net, self.images, self.labels, self.flips, self.losses = net, images, labels, flips, []
        self.encode, self.defence = encode or PhaseEncoder(), defence or undefended
        self.epochs = check.integer("epochs", epochs, at_least=1)
        self.ranks = ranks or Ranks()
        self.batch_size = self.ranks.check_batch("batch_size", check.integer("batch_size", batch_size, at_least=1))
        self.lr = check.number("lr", lr, above=0)
        check.one_of("schedule", schedule, SCHEDULES)
        self.precision = check.one_of("precision", precision, IN_TRAINING)
        check.number("weight_decay", weight_decay, at_least=0)
        kind = OPTIMIZERS[check.one_of("optimizer", optimizer, OPTIMIZERS)]
        check.integer("seed", seed, at_least=0, at_most=2**63 - 1)
        salts = {"order": 0, **_SALTS}
        self.draws = {name: torch.Generator().manual_seed(seed ^ salt) for name, salt in salts.items()}
        self.optimizer = kind(_groups(net), lr=lr, weight_decay=weight_decay)
        steps = epochs * math.ceil(len(images) / batch_size)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        self.decay = cosine(self.optimizer, steps) if schedule == "cosine" else None
        self.learner = Learner(
            net, prepare(self.ranks.joined(net)), self.optimizer, self.draws["defence"], int(labels.max())
        )

    def epoch(self, on_batch: Callable[[Batch], None] | None = None) -> float:
        """Go over the images once, leave the network in eval mode, and return the mean loss.

        Args:
            on_batch: called after every batch.

        Raises:
            FloatingPointError: the loss is no longer finite.
        """
        number, device = len(self.losses) + 1, _device(self.net)
        self.net.train()
        summed = torch.zeros((), device=device)
        with _deterministic_cudnn(), in_precision(self.precision):
            for chosen in torch.randperm(len(self.images), generator=self.draws["order"]).split(self.batch_size):
                x, y = self.encode(self._flipped(self.images[chosen]).to(device)), self.labels[chosen].to(device)
                if self.ranks.size > 1:  # after all that is random, of which everyone draws the same
                    mine = self.ranks.share(torch.arange(len(chosen))).to(device)
                    x, y = x[:, mine], y[mine]
                loss = self.defence(self.learner, x, y)
                if self.decay is not None:
                    self.decay.step()
                summed += loss * len(chosen)
                if on_batch is not None:
                    on_batch(Batch(number, len(chosen), loss))
        self.net.eval()
        mean = self.ranks.mean(summed).item() / len(self.images)
        if not math.isfinite(mean):
            raise FloatingPointError(f"The training loss is {mean} in epoch {number}; try an lr below {self.lr:g}.")
        self.losses.append(mean)
        return mean

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return everything that the rest of the training depends on: tensors by name, and what JSON can hold."""
        tensors = {f"network.{name}": tensor for name, tensor in self.net.state_dict().items()}
        optimizer = self.optimizer.state_dict()
        for parameter, state in optimizer["state"].items():
            tensors |= {f"optimizer.{parameter}.{name}": tensor for name, tensor in state.items()}
        tensors |= {f"random.{name}": generator.get_state() for name, generator in self._generators().items()}
        tensors["random.torch"] = torch.get_rng_state()  # of networks with dropout
        decay = None if self.decay is None else self.decay.state_dict()
        return tensors, {"losses": list(self.losses), "groups": optimizer["param_groups"], "decay": decay}

    def load_state(self, tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> None:
        """Go on from what `state` returned, also after a way through JSON; tensors may lie on any device."""
        parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "optimizer": {}, "random": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.net.load_state_dict(parts["network"])
        of_parameters: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            parameter, _, rest = name.partition(".")
            of_parameters.setdefault(int(parameter), {})[rest] = tensor
        self.optimizer.load_state_dict({"state": of_parameters, "param_groups": numbers["groups"]})
        if self.decay is not None:
            self.decay.load_state_dict(numbers["decay"])
        for name, generator in self._generators().items():
            generator.set_state(parts["random"][name])
        torch.set_rng_state(parts["random"]["torch"])
        self.losses = list(numbers["losses"])

    def _generators(self) -> dict[str, torch.Generator]:
        code = getattr(self.encode, "generator", None)
        return self.draws | ({"code": code} if isinstance(code, torch.Generator) else {})

    def _flipped(self, images: torch.Tensor) -> torch.Tensor:
        if not self.flips:
            return images
        coins = torch.rand(len(images), generator=self.draws["flips"]) < 0.5
        return torch.where(coins.view(-1, *[1] * (images.dim() - 1)).to(images.device), images.flip(-1), images)


def _groups(net: nn.Module) -> list[dict[str, Any]]:
    """Return the optimizer's groups: thresholds and leaks that are learned have one of their own, without a penalty."""
    of_neurons = [parameter for node in learned_neurons(net) for parameter in node.parameters()]
    apart = set(map(id, of_neurons))
    groups = [{"params": [parameter for parameter in net.parameters() if id(parameter) not in apart]}]
    return [*groups, {"params": of_neurons, "weight_decay": 0.0}] if of_neurons else groups


def train(
    net: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    epochs: int,
    T: int = 10,
    K: int = 8,
    encode: Callable[[torch.Tensor], torch.Tensor] | None = None,
    on_batch: Callable[[Batch], None] | None = None,
    **how,
) -> list[float]:
    """Train a network in place on coded images, and leave it in eval mode.

    Args:
        net: from encoded input [T, B, C, H, W] to logits [B, classes]; trained on the device where it is.
        images: uint8 [N, C, H, W], on any device; batches move to the network's; or what `encode` takes.
        labels: int64 [N], 0 to classes - 1.
        epochs: passes over the images, at least 1.
        T: time steps of the phase code; 10 as in the paper.
        K: phases of the phase code; 8 as in the paper.
        encode: from a batch of images to encoded input, an encoder of fastsnn.nn; None is the phase code of T and K.
        on_batch: called after every batch.
        **how: batch_size, seed, and the other settings of Trainer.

    Returns:
        The mean loss of every epoch.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
        FloatingPointError: the loss is no longer finite.
    """
    _check_images(images, labels, coded=encode is not None)
    trainer = Trainer(net, images, labels, epochs=epochs, encode=encode or PhaseEncoder(T, K), **how)
    for _ in range(epochs):
        trainer.epoch(on_batch)
    return trainer.losses


def evaluate(
    net: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    batch_size: int = 64,
    T: int = 10,
    K: int = 8,
    encode: Callable[[torch.Tensor], torch.Tensor] | None = None,
    attack: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
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
        attack: from encoded input and labels to the input that is scored instead; None scores the images.
        on_batch: called after every batch with its number of images.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
    """
    _check_images(images, labels, coded=encode is not None)
    encode = encode or PhaseEncoder(T, K)
    check.integer("batch_size", batch_size, at_least=1)
    device, correct = _device(net), 0
    for some, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        x, y = encode(some.to(device)), y.to(device)
        correct += count_correct(net, x if attack is None else attack(x, y), y)
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
