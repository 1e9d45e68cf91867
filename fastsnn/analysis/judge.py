"""The checks that `verdict` makes, one by one: each tries something at the judged budget and says what it saw."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from ..attacks import fgsm, pgd, square
from ..attacks.input_gradient import input_gradient
from ..engine import remembered
from ..engine.under_attack import under_attack
from ..nn import IFNode, seen_through
from ..nn import precision as in_precision
from ..ops.attack_step import default_batch_axis

Attack = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_ADDED = 0.002  # share of samples: where Square lowers the worst case by more, AutoAttack calls its own result in doubt
_Norm = nn.modules.batchnorm._BatchNorm


class Check(NamedTuple):
    """One check: its name, what was seen, and "pass", "fail" or "not run"."""

    check: str
    seen: str
    result: str


class Judge:
    """The samples, the attack that is judged, and which samples stay right under what was tried at its budget."""

    def __init__(self, network, x, y, eps, alpha, steps, tolerance, batch_size, precision, seed):
        self.network, self.x, self.y, self.axis = network, x, y, default_batch_axis(x)
        self.eps, self.alpha, self.steps, self.tolerance = eps, alpha, steps, tolerance
        self.batch_size, self.precision, self.seed = batch_size, precision, seed
        self.right: dict[str, torch.Tensor] = {}

    def answers(self) -> Iterator[Check]:
        """The network's logits alone: are they logits, and always the same?"""
        part = self.x.narrow(self.axis, 0, min(self.batch_size, len(self.y)))
        runs = [self._logits(part) for _ in range(5)]
        apart = max((run - runs[0]).abs().max().item() for run in runs)
        yield _check("same answer when asked again", f"five runs differ by up to {apart:.1g}", apart > 1e-4)
        sums = (runs[0].sum(1) - 1).abs().max().item()
        is_softmax = bool((runs[0] >= 0).all()) and sums < 1e-4
        yield _check("answers are logits", "probabilities" if is_softmax else "logits", is_softmax)

    def iterations(self) -> Iterator[Check]:
        """One step, the judged number, twice as many."""
        one, many = self._fgsm(), self._pgd("PGD")
        seen = f"FGSM leaves {one:.1%}, PGD-{self.steps} {many:.1%}"
        yield _check("one step does not beat many", seen, one < many - self.tolerance)
        twice = self._pgd(f"PGD-{2 * self.steps}", steps=2 * self.steps)
        seen = f"PGD-{self.steps} leaves {many:.1%}, PGD-{2 * self.steps} {twice:.1%}"
        yield _check("twice the steps gain nothing", seen, twice < many - self.tolerance)

    def budgets(self) -> Iterator[Check]:
        """Accuracy over eps, up to a budget that allows anything."""
        factors = [factor for factor in (0.25, 0.5, 1, 2, 4) if factor * self.eps <= 1]
        clean = self._right(self.x).double().mean().item()
        found = [clean, *(self._scaled(factor) for factor in factors)]
        steps = ", ".join(
            f"{255 * f * self.eps:.3g}: {share:.1%}" for f, share in zip((0, *factors), found, strict=True)
        )
        rises = any(later > before + self.tolerance for before, later in itertools.pairwise(found))
        yield _check("accuracy never rises with eps", f"eps*255 {steps}", rises)
        at_one, last = found[1 + factors.index(1)], found[-1]
        flat = at_one > self.tolerance and last > at_one - self.tolerance and factors[-1] > 1
        yield _check("a larger eps is stronger", f"{at_one:.1%} at eps, {last:.1%} at {factors[-1]:g} eps", flat)
        steps = max(self.steps, 10)
        unbounded = self._pgd(None, eps=1.0, alpha=2.5 / steps, steps=steps)
        yield _check("eps = 1 reaches 0 %", f"{unbounded:.1%} stay right", unbounded > self.tolerance)

    def zero_gradients(self) -> Check:
        """Samples that no gradient can move."""
        zero = torch.cat([self._is_zero(x, y) for x, y in self._batches()])
        seen = f"{int(zero.sum())} of {len(zero)} gradients are 0 everywhere"
        return _check("every sample has a gradient", seen, bool(zero.any()))

    def search(self, draws: int, images: int) -> Check:
        """Noise on samples that PGD left right."""
        chosen = self.right["PGD"].nonzero()[:images, 0]
        name = "noise finds nothing that PGD missed"
        if not len(chosen):
            return Check(name, "PGD leaves no sample right", "not run")
        x, y = self.x.index_select(self.axis, chosen), self.y[chosen]
        draw, still = torch.Generator(x.device).manual_seed(self.seed), torch.ones_like(y, dtype=torch.bool)
        for i in range(draws):
            noise = torch.rand(x.shape, generator=draw, device=x.device).mul_(2).sub_(1)
            noise = noise.sign() if i % 2 else noise
            still &= self._right((x + self.eps * noise).clamp(0, 1), y)
        self.right["noise"] = self.right["PGD"].index_put((chosen,), still)
        seen = f"{draws} noises fool {int((~still).sum())} of {len(chosen)} samples that PGD does not"
        return _check(name, seen, not bool(still.all()))

    def transfer(self, other) -> Check:
        """PGD on another network, judged on this one."""
        name = "white box beats transfer"
        if other is None:
            return Check(name, "no other network was given", "not run")
        crafted = self._pgd("transfer", network=other)
        own = self.right["PGD"].double().mean().item()
        return _check(name, f"PGD leaves {own:.1%}, transferred {crafted:.1%}", crafted < own - self.tolerance)

    def black_boxes(self, attacks: Mapping[str, Attack]) -> Iterator[Check]:
        """Attacks without a gradient."""
        own = self.right["PGD"].double().mean().item()
        for name, attack in attacks.items():
            adv = [x + (attack(x, y).detach() - x).clamp(-self.eps, self.eps) for x, y in self._batches()]
            share = self._score(f"black box {name}", torch.cat(adv, self.axis).clamp(0, 1))
            seen = f"PGD leaves {own:.1%}, {name} {share:.1%}"
            yield _check(f"white box beats {name}", seen, share < own - self.tolerance)

    def gradient_free(self, queries: int) -> Iterator[Check]:
        """Square, which looks at logits only: against PGD, and against all that was tried before."""
        names = "white box beats Square", "Square adds nothing"
        if queries == 0 or self.x.dim() < 4:
            why = "no query was allowed" if queries == 0 else "samples are no pictures"
            yield from (Check(name, why, "not run") for name in names)
            return
        draw, adv = torch.Generator().manual_seed(self.seed), []
        for x, y in self._batches():
            seeds = torch.randint(2**63 - 1, (len(y),), generator=draw).tolist()  # so that batches change nothing
            generators = [torch.Generator(x.device).manual_seed(seed) for seed in seeds]
            how = {"eps": self.eps, "n_queries": queries, "precision": self.precision, "generator": generators}
            adv.append(square(self.network, x, y, **how))
        own, before = self.right["PGD"].double().mean().item(), self.worst()
        share = self._score("Square", torch.cat(adv, self.axis))
        after = self.worst()
        yield _check(names[0], f"PGD leaves {own:.1%}, {queries} queries {share:.1%}", share < own - self.tolerance)
        seen = f"all before leave {before:.1%}, with Square {after:.1%}"
        yield _check(names[1], seen, after < before - _ADDED)

    def surrogates(self, surrogates: Sequence[tuple[str, float]]) -> Check:
        """What an attacker finds who chooses the surrogate."""
        name, own = "no other surrogate is better", self.right["PGD"].double().mean().item()
        if not surrogates or not any(isinstance(module, IFNode) for module in self.network.modules()):
            return Check(name, "no surrogate to try, or no neuron of this package", "not run")
        found = {}
        for shape, width in surrogates:
            with seen_through(self.network, shape, width):
                adv = self._crafted(self.network)
            found[f"{shape}:{width:g}"] = self._score(f"surrogate {shape}:{width:g}", adv)
        seen = ", ".join(f"{what} {share:.1%}" for what, share in found.items())
        return _check(name, f"own {own:.1%}, {seen}", min(found.values()) < own - self.tolerance)

    def statistics(self) -> Check:
        """Gradients with the batch's statistics in the norms, as in train mode."""
        name, own = "no other batch-norm mode is better", self.right["PGD"].double().mean().item()
        if not any(isinstance(module, _Norm) for module in self.network.modules()):
            return Check(name, "the network has no batch norm", "not run")
        batch = self._pgd("batch statistics", bn="batch")
        return _check(name, f"frozen {own:.1%}, the batch's {batch:.1%}", batch < own - self.tolerance)

    def worst(self) -> float:
        """Return the share of samples that stay right under everything at the judged budget."""
        return torch.stack(list(self.right.values())).all(0).double().mean().item()

    def _scaled(self, factor: float) -> float:
        if factor == 1:
            return self.right["PGD"].double().mean().item()
        return self._pgd(None, eps=factor * self.eps, alpha=factor * self.alpha)

    def _pgd(self, name: str | None, *, network=None, **how) -> float:
        return self._score(name, self._crafted(self.network if network is None else network, **how))

    def _crafted(self, network, **how) -> torch.Tensor:
        how = {"eps": self.eps, "alpha": self.alpha, "steps": self.steps, "precision": self.precision, **how}
        draw = torch.Generator(self.x.device).manual_seed(self.seed)
        return torch.cat([pgd(network, x, y, generator=draw, **how) for x, y in self._batches()], self.axis)

    def _fgsm(self) -> float:
        how = {"eps": self.eps, "precision": self.precision}
        return self._score("FGSM", torch.cat([fgsm(self.network, x, y, **how) for x, y in self._batches()], self.axis))

    def _score(self, name: str | None, adv: torch.Tensor) -> float:
        right = self._right(adv)
        if name is not None:
            self.right[name] = right
        return right.double().mean().item()

    def _right(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        y = self.y if y is None else y
        parts = zip(x.split(self.batch_size, self.axis), y.split(self.batch_size), strict=True)
        return torch.cat([self._logits(some).argmax(1) == labels for some, labels in parts])

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), under_attack(self.network, "frozen"), in_precision(self.precision):
            return remembered(self.network)(x)

    def _is_zero(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with input_gradient(self.network, precision=self.precision) as gradient:
            found = gradient(x.detach().clone(), y.to(torch.int64, copy=True))  # of inference tensors too
            return (found == 0).transpose(0, self.axis).flatten(1).all(1)

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return zip(self.x.split(self.batch_size, self.axis), self.y.split(self.batch_size), strict=True)


def _check(name: str, seen: str, failed: bool) -> Check:
    return Check(name, seen, "fail" if failed else "pass")
