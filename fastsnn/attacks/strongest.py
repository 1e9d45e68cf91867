"""The ensemble of surrogates, and the strongest evaluation of a spiking network: for each sample the worst of all.

Wang et al. 2025 and Ozdenizci and Legenstein 2024 found most of an SNN's robustness to be that of the surrogate one
attack happens to use; what holds is the worst case over adaptive, fixed and no gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from ..ops import check
from .auto_pgd import apgd
from .draws import Generators
from .projected import fgsm, pgd
from .random_search import square
from .stable import sapgd
from .surrogates import maker_of
from .worst_case import Additions, Part, worst_case

# Those of Ozdenizci and Legenstein's code: piecewise, exponential (of height 1 and 0.3) and rectangular ones of several
# widths, straight through, and through the rate. Their nineteenth, a network of ReLUs, is another forward pass.
SURROGATES = (
    *("triangle:1", "triangle:0.5", "triangle:0.3333", "triangle:2", "triangle:4"),
    *("damped:0.5", "damped:1", "damped:2", "exponential:0.5", "exponential:1", "exponential:2"),
    *("rectangle:4", "rectangle:2", "rectangle:1", "rectangle:0.5", "rectangle:0.25", "straight", "bptr"),
)
ATTACKS = ("fgsm", "pgd", "apgd")


def ensemble(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float | torch.Tensor,
    alpha: float,
    steps: int,
    surrogates: Sequence[str] = SURROGATES,
    attacks: Sequence[str] = ATTACKS,
    precision: str = "fp32",
    engine: str | None = "auto",
    generator: Generators = None,
) -> tuple[torch.Tensor, Additions]:
    """Attack through several surrogates, the worst for each sample (Ozdenizci and Legenstein 2024).

    What attacks share is described in fastsnn.attacks. What differs, or is this attack's own:

        network: from x to logits [B, classes], with neurons of fastsnn.nn; attacked with frozen batch norm.
        eps: budget, at least 0: a number, or one per sample [B].
        alpha: step of PGD, above 0; Ozdenizci and Legenstein take 2.5 eps / steps.
        steps: iterations of PGD and APGD, at least 1; they take 10.
        surrogates: what the attacker takes for the gradient of a spike, one after the other.
        attacks: of "fgsm", "pgd" and "apgd", each with every surrogate before the next begins.

    Returns:
        Input like x, adversarial where one of them was successful and else x itself, in the ball exactly; and a table
        with a row for each of them, of what it added to those before.
    """
    check.number("alpha", alpha, above=0)
    how = {"precision": precision, "engine": engine}
    parts = tuple(_ensemble(alpha, steps, surrogates, attacks, how))
    return worst_case(network, x, y, parts, eps=eps, generator=generator, **how)


def strongest(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    eps: float | torch.Tensor,
    steps: int = 100,
    ensemble_steps: int = 10,
    surrogates: Sequence[str] = SURROGATES,
    n_queries: int = 5000,
    precision: str = "fp32",
    engine: str | None = "auto",
    generator: Generators = None,
) -> tuple[torch.Tensor, Additions]:
    """Attack with all that is known to matter, the worst for each sample: in the Linf ball, frozen batch norm.

    ASSG + SA-PGD, APGD on cross-entropy and on DLR through the network's own surrogate, FGSM, PGD and APGD through the
    ensemble of surrogates (PGD with steps of 2.5 eps / steps), and Square; each on the samples that are left.

    What attacks share is described in fastsnn.attacks. What differs, or is this attack's own:

        network: from x to logits [B, classes] of at least 3 classes, with neurons of fastsnn.nn.
        eps: budget, at least 0: a number, or one per sample [B].
        steps: iterations of SA-PGD and APGD, at least 1; 100 as in Wang et al. and AutoAttack.
        ensemble_steps: iterations with each of the surrogates, at least 1; 10 as in Ozdenizci and Legenstein.
        surrogates: of the ensemble.
        n_queries: of Square, at least 1; 5000 as in AutoAttack.

    Returns:
        Input like x, adversarial where an attack was successful and else x itself, in the ball exactly; and a table
        with a row for each attack and surrogate, of what it added to those before.
    """
    check.integer("steps", steps, at_least=1)
    check.integer("ensemble_steps", ensemble_steps, at_least=1)
    check.integer("n_queries", n_queries, at_least=1)
    how = {"precision": precision, "engine": engine}

    def adaptive(network, x, y, eps, generator):
        return sapgd(network, x, y, eps=eps, steps=steps, generator=generator, **how)

    def auto(loss):
        def run(network, x, y, eps, generator):
            return apgd(network, x, y, eps=eps, steps=steps, loss=loss, generator=generator, **how)

        return run

    def search(network, x, y, eps, generator):
        return square(network, x, y, eps=eps, n_queries=n_queries, generator=generator, **how)

    parts = (
        Part("ASSG + SA-PGD", "assg", adaptive),
        Part("APGD-ce", None, auto("ce")),
        Part("APGD-dlr", None, auto("dlr")),
        *_ensemble(None, ensemble_steps, surrogates, ATTACKS, how),
        Part("Square", None, search),
    )
    return worst_case(network, x, y, parts, eps=eps, generator=generator, **how)


def _ensemble(alpha, steps, surrogates, attacks, how) -> Iterator[Part]:
    """Yield a part for each attack and surrogate; alpha None is 2.5 eps / steps."""
    check.integer("steps", steps, at_least=1)
    for surrogate in surrogates:
        maker_of(surrogate)  # refuses what it does not know
    for attack in attacks:
        check.one_of("attacks", attack, ATTACKS)
        for surrogate in surrogates:
            yield Part(f"ensemble, {attack}", surrogate, _with(attack, surrogate, alpha, steps, how))


def _with(attack, surrogate, alpha, steps, how):
    def run(network, x, y, eps, generator):
        settings = {"eps": eps, "surrogate": surrogate, **how}
        if attack == "fgsm":
            return fgsm(network, x, y, **settings)
        settings |= {"steps": steps, "generator": generator}
        if attack == "apgd":
            return apgd(network, x, y, **settings)
        # a budget of 0 leaves no room to step, whatever the step is
        size = torch.where(eps > 0, 2.5 * eps / steps, 1.0) if alpha is None else alpha
        return pgd(network, x, y, alpha=size, **settings)

    return run


class Ensemble:
    """ensemble with its settings held: `Ensemble(clf, eps=8/255, alpha=2/255, steps=10)(images, y)`; see ensemble.

    Attributes:
        table: what each attack added, over all batches so far; None before the first.
    """

    def __init__(
        self,
        network: Callable,
        eps: float | torch.Tensor = 8 / 255,
        alpha: float = 2 / 255,
        steps: int = 10,
        **how,
    ):
        self.network, self.settings = network, {"eps": eps, "alpha": alpha, "steps": steps, **how}
        self.table: Additions | None = None

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return adversarial input like x, and add what happened to the table."""
        adv, table = ensemble(self.network, x, y, **self.settings)
        self.table = table if self.table is None else self.table.plus(table)
        return adv


class Strongest:
    """strongest with its settings held: `Strongest(clf, eps=8/255)(images, y)`; see strongest.

    Attributes:
        table: what each attack added, over all batches so far; None before the first.
    """

    def __init__(self, network: Callable, eps: float | torch.Tensor = 8 / 255, **how):
        self.network, self.settings = network, {"eps": eps, **how}
        self.table: Additions | None = None

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return adversarial input like x, and add what happened to the table."""
        adv, table = strongest(self.network, x, y, **self.settings)
        self.table = table if self.table is None else self.table.plus(table)
        return adv
