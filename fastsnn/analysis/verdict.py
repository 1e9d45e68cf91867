"""Is robustness real, or is the gradient masked? The usual checks in one call, and a sentence.

Checks of Athalye et al. 2018 ("Obfuscated gradients give a false sense of security", section 3.1), Carlini et al. 2019
("On evaluating adversarial robustness") and AutoAttack's flags, as far as FGSM, PGD and random noise can make them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from ..attacks import fgsm, pgd
from ..attacks.gradient import check_input, input_gradient
from ..engine import Prepared, remembered
from ..engine.under_attack import under_attack
from ..nn import IFNode, seen_through
from ..nn import precision as in_precision
from ..ops import check
from ..ops.attack_step import default_batch_axis
from ..ops.integrate_fire import Neuron, checked

Attack = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# shapes and widths that a trained arctan of alpha 2 is seen through: wider, narrower, and another form
SURROGATES = (("atan", 0.5), ("atan", 1.0), ("atan", 4.0), ("triangle", 1.0))
_Norm = nn.modules.batchnorm._BatchNorm


class Check(NamedTuple):
    """One check: its name, what was seen, and "pass", "fail" or "not run"."""

    check: str
    seen: str
    result: str


class Verdict(list):
    """Rows of `verdict`, a list of Check; as text a table with the conclusion below.

    Attributes:
        pgd: accuracy under the attack that is judged, 0 to 1.
        worst: the share of samples that stay right under every attack made at that eps.
        eps: its budget.
    """

    def __init__(self, rows: Iterable[Check], pgd: float, worst: float, eps: float):
        super().__init__(rows)
        self.pgd, self.worst, self.eps = pgd, worst, eps

    @property
    def conclusion(self) -> str:
        """Return what to make of it, in a sentence."""
        failed = [row.check for row in self if row.result == "fail"]
        made = sum(row.result != "not run" for row in self)
        numbers = (
            f"at eps = {255 * self.eps:g}/255 PGD leaves {self.pgd:.1%} right, all attacks together {self.worst:.1%}"
        )
        if not failed:
            return f"No sign of masked gradients in {made} checks: {numbers}."
        what = f"{len(failed)} of {made} checks failed ({'; '.join(failed)})"
        return f"The gradient is masked, or the attack too weak: {what}; {numbers}."

    def __str__(self) -> str:
        """Return a table: check, result, what was seen; and the conclusion."""
        lines = [("check", "result", "seen"), *((row.check, row.result, row.seen) for row in self)]
        widths = [max(len(line[i]) for line in lines) for i in range(2)]
        text = [f"{name:<{widths[0]}}  {result:<{widths[1]}}  {seen}".rstrip() for name, result, seen in lines]
        return "\n".join([*text, self.conclusion])


def verdict(
    network: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float = 6 / 255,
    alpha: float = 0.01,
    steps: int = 7,
    other: Callable[[torch.Tensor], torch.Tensor] | None = None,
    black_box: Mapping[str, Attack] | None = None,
    surrogates: Sequence[tuple[str, float]] = SURROGATES,
    draws: int = 100,
    search_images: int = 16,
    tolerance: float = 0.01,
    batch_size: int = 60,
    precision: str = "fp32",
    seed: int = 0,
    on_check: Callable[[Check], None] | None = None,
) -> Verdict:
    """Judge PGD on a network: whether its gradient shows the way, or stronger and simpler attacks find more.

    A check fails if what it finds speaks for a masked gradient: one step beats many; doubled steps still gain;
    a budget of 1, which allows any input, does not bring accuracy to 0; accuracy rises with eps, or does not fall from
    eps to 4 eps; noise fools a sample that PGD could not; a transferred or black-box attack beats PGD; a sample's
    gradient is all zero; another surrogate, or gradients with the batch's statistics, beat the network's own; the
    network answers differently when asked again, or answers with probabilities.

    Args:
        network: from x to logits [B, classes]; attacked with frozen batch norm, and left as it was found.
        x: encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1]; a hundred samples tell something.
        y: labels [B].
        eps: budget, above 0 and below 1; the paper's. alpha and steps too.
        alpha: step of PGD; grows with the budget where that is varied.
        steps: iterations, at least 1.
        other: a network of its own training, e.g. with the other pooling, to transfer from; None leaves that out.
        black_box: further attacks by name that use no gradient of `network`, e.g. Square: called with x and y.
        surrogates: shapes and alphas that the attacker tries instead of the network's own.
        draws: noises per sample in the random search, half uniform, half at the corners of the ball.
        search_images: on how many of the samples that PGD leaves right.
        tolerance: differences of accuracy that count as none, 0.01 is one point.
        batch_size: samples per pass.
        precision: see nn.precision.
        seed: of random starts and noises.
        on_check: called after each check.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
    """
    network = network.network if isinstance(network, Prepared) else network
    if not isinstance(network, nn.Module):
        raise TypeError(f"network is of type {type(network).__name__}, expected a torch.nn.Module.")
    check_input(x, y)
    if not y.numel():
        raise ValueError(f"x has shape {list(x.shape)}: there is no sample in it.")
    if check.number("eps", eps, above=0) >= 1:
        raise ValueError(f"eps is {eps}, expected less than 1, which allows any input.")
    check.number("alpha", alpha, above=0)
    check.number("tolerance", tolerance, at_least=0)
    bounds = (("steps", steps), ("draws", draws), ("search_images", search_images), ("batch_size", batch_size))
    for name, value in bounds:
        check.integer(name, value, at_least=1)
    for shape, width in surrogates:
        checked(Neuron(surrogate=shape, alpha=width))
    judge = _Judge(network, x.detach(), y, eps, alpha, steps, tolerance, batch_size, precision, seed)
    rows = []
    for row in (
        *judge.answers(),
        *judge.iterations(),
        *judge.budgets(),
        judge.zero_gradients(),
        judge.search(draws, search_images),
        judge.transfer(other),
        *judge.black_boxes(black_box or {}),
        judge.surrogates(surrogates),
        judge.statistics(),
    ):
        rows.append(row)
        if on_check is not None:
            on_check(row)
    return Verdict(rows, judge.right["PGD"].double().mean().item(), judge.worst(), eps)


class _Judge:
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
            share = self._score(name, torch.cat(adv, self.axis).clamp(0, 1))
            seen = f"PGD leaves {own:.1%}, {name} {share:.1%}"
            yield _check(f"white box beats {name}", seen, share < own - self.tolerance)

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
            found = gradient(x.detach(), y.to(torch.int64, copy=True))
        return (found == 0).transpose(0, self.axis).flatten(1).all(1)

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return zip(self.x.split(self.batch_size, self.axis), self.y.split(self.batch_size), strict=True)


def _check(name: str, seen: str, failed: bool) -> Check:
    return Check(name, seen, "fail" if failed else "pass")
