"""Defences by name, with their settings in one text: "snn_rat", or "snn_rat:eps=4:beta=0.001".

Input discretisation (Sharmin et al. 2020) is not among them: it is the rate code, so a choice of encoder.
"""

from __future__ import annotations

from dataclasses import asdict, fields

from torch import nn

from ..nn import learn_neurons
from ..ops import check
from .hire import HIRE
from .learner import Defence
from .snn_rat import SNNRAT
from .sparse_gradient import SparseGradient

NO_DEFENCE = "none"
_MADE = {
    "snn_rat": SNNRAT,
    "mixed_rat": lambda **settings: SNNRAT(mixed=True, **settings),
    "hire": HIRE,
    "sparse_gradient": SparseGradient,
}
_SETTINGS = {"snn_rat": ("eps", "beta"), "mixed_rat": ("eps", "beta")}
DEFENCES = (NO_DEFENCE, *_MADE)


def defence_of(name: str, text: str) -> Defence | None:
    """Return the defence that a text asks for, None for "none".

    Args:
        name: of the argument, for messages.
        text: a name of DEFENCES, and settings that differ from its defaults, each after a colon as key=value.

    Raises:
        ValueError, TypeError: an unknown name or key, or a value that is no number or out of range.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name} is {text!r}, expected a name such as 'snn_rat' or 'snn_rat:eps=4'.")
    which, *given = text.split(":")
    check.one_of(name, which, DEFENCES)
    if which == NO_DEFENCE:
        if given:
            raise ValueError(f"{name} is {text!r}, but none has no settings.")
        return None
    known = _SETTINGS.get(which) or tuple(field.name for field in fields(_MADE[which]))
    settings = {}
    for one in given:
        key, _, value = one.partition("=")
        check.one_of(f"a setting of {name} {which!r}", key, known)
        settings[key] = _number(f"{key} of {name} {which!r}", value)
    return _MADE[which](**settings)


def described(text: str) -> dict[str, object]:
    """Return all settings of a defence but "none", those that were not given too: trained weights depend on them."""
    settings = asdict(defence_of("defence", text))
    if not settings.get("learned", True):  # it came later: others are described as before
        del settings["learned"]
    return settings


def neurons_for(net: nn.Module, text: str) -> nn.Module:
    """Return a network with the neurons that a defence asks for: those of "hire:learned=1" learn, see nn.learned."""
    return learn_neurons(net) if getattr(defence_of("defence", text), "learned", 0) else net


def _number(name: str, text: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"{name} is {text!r}, expected a number.")
