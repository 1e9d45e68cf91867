"""The attacks of a sweep by their names, and which of its settings each of them takes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .. import attacks

_TAKES = {  # functions of fastsnn.attacks
    "fgsm": (),
    "pgd": ("alpha", "steps", "restarts", "generator"),
    "mim": ("alpha", "steps"),
    "apgd": ("steps", "restarts", "generator"),
    "apgdt": ("steps", "generator"),
}
ATTACKS = tuple(_TAKES)
TARGETS = 9  # that apgdt tries one after the other, by its own default


def takes(attack: str, setting: str) -> bool:
    """Tell whether an attack takes "alpha", "steps", "restarts" or "generator"."""
    return setting in _TAKES[attack]


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
    own = {name: settings[name] for name in _TAKES[attack]}
    return getattr(attacks, attack)(network, x, y, **how, **own)
