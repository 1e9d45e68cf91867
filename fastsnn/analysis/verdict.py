"""Is robustness real, or is the gradient masked? The usual checks in one call, and a sentence.

Checks of Athalye et al. 2018 ("Obfuscated gradients give a false sense of security", section 3.1), Carlini et al. 2019
("On evaluating adversarial robustness") and AutoAttack's flags, as far as FGSM, PGD, Square and noise can make them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn

from ..attacks.gradient import check_input
from ..engine import Prepared
from ..ops import check
from ..ops.integrate_fire import Neuron, checked
from .judge import Attack, Check, Judge

# shapes and widths that a trained arctan of alpha 2 is seen through: wider, narrower, and another form
SURROGATES = (("atan", 0.5), ("atan", 1.0), ("atan", 4.0), ("triangle", 1.0))


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
    queries: int = 200,
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
    gradient is all zero; another surrogate, or gradients with the batch's statistics, beat the network's own; Square
    beats PGD, or lowers the worst case of all before it by more than 0.2 % (AutoAttack's flag); the network answers
    differently when asked again, or answers with probabilities.

    Args:
        network: from x to logits [B, classes]; attacked with frozen batch norm, and left as it was found.
        x: encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1]; a hundred samples tell something.
        y: labels [B].
        eps: budget, above 0 and below 1; the paper's. alpha and steps too.
        alpha: step of PGD; grows with the budget where that is varied.
        steps: iterations, at least 1.
        other: a network of its own training, e.g. with the other pooling, to transfer from; None leaves that out.
        black_box: further attacks by name that use no gradient of `network`, e.g. another library's: called with x and
            y.
        surrogates: shapes and alphas that the attacker tries instead of the network's own.
        draws: noises per sample in the random search, half uniform, half at the corners of the ball; 100 are cheap, and
            10,000 are what evaluations ask for.
        search_images: on how many of the samples that PGD leaves right.
        queries: of Square for each sample, see attacks.square; 200 cost about as much as all other checks, 5000 are
            AutoAttack's. 0 leaves it out.
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
    check.integer("queries", queries, at_least=0)
    for shape, width in surrogates:
        checked(Neuron(surrogate=shape, alpha=width))
    judge = Judge(network, x.detach(), y, eps, alpha, steps, tolerance, batch_size, precision, seed)
    rows = []

    def checks() -> Iterator[Check]:  # one by one, so that on_check hears of each as it is done
        yield from judge.answers()
        yield from judge.iterations()
        yield from judge.budgets()
        yield judge.zero_gradients()
        yield judge.search(draws, search_images)
        yield judge.transfer(other)
        yield from judge.black_boxes(black_box or {})
        yield judge.surrogates(surrogates)
        yield judge.statistics()
        yield from judge.gradient_free(queries)

    for row in checks():
        rows.append(row)
        if on_check is not None:
            on_check(row)
    return Verdict(rows, judge.right["PGD"].double().mean().item(), judge.worst(), eps)
