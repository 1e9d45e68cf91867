"""Attacks one network's images, in shards: the work of a sweep that can be done anywhere.

Every pass starts from the trained weights, and every image has random numbers of its own, so what becomes of an image
depends neither on the other cells, nor (with bn="frozen") on the batch, the shard or the machine's number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy
import torch

from ..attacks.input_gradient import input_gradient
from ..engine.batch_size import first_try, halved_until_it_fits
from . import by_name, inputs, networks
from .ledger import Outcome
from .plan import Cell, Network, Pass, Settings

Result = TypeVar("Result")
OnBatch = Callable[[int], None]


class Attacker:
    """Holds one network at a time on one device, and attacks test images with it.

    Args:
        settings: the sweep's.
        device: where to compute.
    """

    def __init__(self, settings: Settings, device: torch.device):
        self.settings, self.device = settings, device
        self._network: Network | None = None

    def take(self, network: Network, state: dict[str, torch.Tensor]) -> None:
        """Attack this network from now on; `state` is its state_dict."""
        test_set = inputs.load(self.settings, network.data, "test").first(self.settings.images)
        self._images, self._labels = test_set.images, test_set.labels
        draws = torch.Generator().manual_seed(network.seed)
        self._seeds = torch.randint(2**63 - 1, self._labels.shape, generator=draws).tolist()
        self._net = networks.untrained(self.settings, network, test_set.num_classes).to(self.device).eval()
        self._state = {name: tensor.clone() for name, tensor in state.items()}
        self._network, self._size, self._clean = network, None, {}

    def holds(self, network: Network) -> bool:
        """Tell whether `network` is the one."""
        return self._network == network

    def attack(self, cells: Pass, images: range, on_batch: OnBatch = lambda images: None) -> list[Outcome]:
        """Return what becomes of some images under each cell of a pass; on_batch hears of every batch."""
        self._net.load_state_dict(self._state)
        clean, zero = self._without_attack(cells[0], images)
        found = {cell: _Found() for cell in cells}
        for group in _groups(cells):
            self._net.load_state_dict(self._state)
            for x, advs, y in self._batches(images, lambda x, y, draws, group=group: self._craft(group, x, y, draws)):
                for cell, (adv, correct) in zip(group, advs, strict=True):
                    found[cell].take(x, adv, correct)
                on_batch(len(y))
        return [self._outcome(cell, found[cell], clean, zero) for cell in cells]

    def examples(self, cell: Cell, images: range) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what `attack` scores under a cell, on the CPU, and not only whether it is classified rightly.

        That is the images' encoded input [T, B, C, H, W], the adversarial input, and the class [B] seen in either.
        """
        self._net.load_state_dict(self._state)

        def work(x: torch.Tensor, y: torch.Tensor, draws: list[torch.Generator]) -> tuple[torch.Tensor, ...]:
            ((adv, _),) = self._craft((cell,), x, y, draws)
            return adv, self._seen(x), self._seen(adv)

        found = [(x, *made) for x, made, _ in self._batches(images, work)]
        xs, advs, before, after = zip(*found, strict=True)
        return torch.cat(xs, 1).cpu(), torch.cat(advs, 1).cpu(), torch.cat(before).cpu(), torch.cat(after).cpu()

    def _seen(self, x: torch.Tensor) -> torch.Tensor:
        """Return the classes that the network sees, by the sums that attacks use."""
        with input_gradient(self._net, precision=self.settings.precision) as gradient, torch.no_grad():
            return gradient.network(x).argmax(1)

    def _outcome(self, cell: Cell, found: _Found, clean: numpy.ndarray, zero: numpy.ndarray) -> Outcome:
        if not found.correct:  # eps = 0 moves nothing
            return Outcome(clean, clean, zero, numpy.zeros(len(clean), numpy.float32))
        return Outcome(clean, numpy.concatenate(found.correct), zero, numpy.concatenate(found.linf))

    def _without_attack(self, cell: Cell, images: range) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Return which images are classified rightly, and which have a gradient of zero; kept for the next passes."""
        bn = "batch" if cell.bn == "drift" else cell.bn  # as at the first step of an attack, and moves no statistics
        key = (bn, cell.surrogate, images)
        if key not in self._clean:
            found = [both for _, both, _ in self._batches(images, lambda x, y, _: self._look(cell, bn, x, y))]
            self._clean[key] = tuple(torch.cat(part).numpy() for part in zip(*found, strict=True))
        return self._clean[key]

    def _look(self, cell: Cell, bn: str, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        how = {"precision": self.settings.precision, "surrogate": cell.surrogate}
        with input_gradient(self._net, bn=bn, **how) as gradient:
            zero = (gradient(x, y) == 0).transpose(0, 1).flatten(1).all(1)
        return self._correct(x, y), zero.cpu()

    def _correct(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return which are classified rightly, by the sums that attacks use."""
        with input_gradient(self._net, precision=self.settings.precision) as gradient:
            misclassified, _ = gradient.outcome(x, y)
        return ~misclassified.cpu()

    def _craft(self, cells: Pass, x: torch.Tensor, y: torch.Tensor, draws: list[torch.Generator]) -> list[tuple]:
        """Return adversarial input for every cell, and which of it is classified rightly."""
        first = cells[0]
        how = {"bn": first.bn, "precision": self.settings.precision, "surrogate": first.surrogate}
        how |= {"eps": [cell.eps / 255 for cell in cells]}
        settings = {"alpha": self.settings.alpha, "steps": first.steps, "restarts": first.restarts, "generator": draws}
        found = by_name.craft(first.attack, self._net, x, y, settings, **how)
        return [(adv, self._correct(adv, y)) for adv in found]

    def _batches(
        self, images: range, work: Callable[..., Result]
    ) -> Iterator[tuple[torch.Tensor, Result, torch.Tensor]]:
        """Yield, for each batch, encoded input, work(it, labels, generators) and labels."""
        size, auto = self.settings.batch_size, self.settings.batch_size == "auto"
        if auto:  # what fitted once is kept
            size = self._size = self._size or first_try(self.device, len(images))
        first = images.start

        def on(count: int) -> tuple[torch.Tensor, Result, torch.Tensor]:
            some = slice(first, first + count)
            draws = [inputs.generator(seed, self.device) for seed in self._seeds[some]]
            x = inputs.encoder(self.settings, self._network, draws)(self._images[some].to(self.device))
            y = self._labels[some].to(self.device)
            return x, work(x, y, [torch.Generator(self.device).manual_seed(seed) for seed in self._seeds[some]]), y

        while left := images.stop - first:
            count = min(size, left)
            if auto:
                found, fitted = halved_until_it_fits(on, count)
                if fitted < count:
                    size = self._size = fitted
            else:
                found = on(count)
            yield found
            first += len(found[2])


class _Found:
    """A cell's images so far."""

    def __init__(self):
        self.correct, self.linf = [], []

    def take(self, x: torch.Tensor, adv: torch.Tensor, correct: torch.Tensor) -> None:
        self.correct.append(correct.numpy())
        self.linf.append((adv - x).abs().amax((0, 2, 3, 4)).cpu().numpy())


def shards(settings: Settings, cells: Pass, images: int, workers: int) -> list[range]:
    """Return the ranges of images that workers can attack apart from each other, a few for each of them.

    With batch statistics a shard is whole batches; where the statistics drift on from batch to batch, it is all images.
    """
    if workers == 1 or cells[0].bn == "drift":
        return [range(images)]
    size = 1 if settings.batch_size == "auto" else settings.batch_size
    length = -(-images // (4 * workers))  # so that the last worker does not leave the others idle for long
    length = -(-length // size) * size
    return [range(first, min(first + length, images)) for first in range(0, images, length)]


def _groups(cells: Pass) -> list[Pass]:
    """Return the cells to be attacked, in groups that share a call: all that leave the network be."""
    moving = cells[0].bn == "drift"
    to_attack = tuple(cell for cell in cells if cell.eps > 0 or moving)
    if moving and cells[0].attack != "fgsm":
        return [(cell,) for cell in to_attack]
    return [to_attack] if to_attack else []
