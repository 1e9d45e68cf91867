"""The attacks of a sweep by their names, and which of its settings each of them takes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .. import attacks

_ALL: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "fgsm": (attacks.fgsm, ()),
    "pgd": (attacks.pgd, ("alpha", "steps", "restarts", "generator")),
    "mim": (attacks.mim, ("alpha", "steps")),
    "apgd": (attacks.apgd, ("steps", "restarts", "generator")),
    "apgdt": (attacks.apgdt, ("steps", "generator")),
}
ATTACKS = tuple(_ALL)
TARGETS = 9  # that apgdt tries one after the other, by its own default


def takes(attack: str, setting: str) -> bool:
    """Tell whether an attack takes "alpha", "steps", "restarts" or "generator"."""
    return setting in _ALL[attack][1]


def craft(
    attack: str, network: Callable, x: torch.Tensor, y: torch.Tensor, settings: dict[str, object], **how
) -> torch.Tensor | list[torch.Tensor]:
    """Return adversarial input.

    Args:
        attack: one of ATTACKS.
        network: from x to logits.
        x: encoded input [T, B, C, H, W].
        y: labels [B].
        settings: alpha, steps, restarts and generator, of which each attack gets those that it takes.
        **how: what all attacks take: eps, bn, precision, surrogate.
    """
    function, names = _ALL[attack]
    return function(network, x, y, **how, **{name: settings[name] for name in names})
