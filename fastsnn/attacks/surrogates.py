"""The attacker's surrogate: an attack may take another gradient of a spike than the network was trained with.

The forward pass, and so every spike, stays what it is (Ozdenizci and Legenstein 2024 take the worst of several).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from torch import nn

from ..nn import IFNode, learned_neurons, seen_through
from ..ops import check
from ..ops.integrate_fire.neuron import SURROGATES
from .adaptive import Adaptive
from .rules import BPTR, HART, PDSG, RGA, Damped, Exponential, Straight
from .seen import Rule, SeenNode

RULES: dict[str, Callable[..., Rule]] = {
    **{"assg": Adaptive, "exponential": Exponential, "damped": Damped, "straight": Straight},
    **{"pdsg": PDSG, "bptr": BPTR, "rga": RGA, "hart": HART},
}
_WITHOUT_A_NUMBER = ("straight", "pdsg", "bptr")


def shape_and_alpha(name: str, text: str) -> tuple[str, float]:
    """Return shape and alpha of e.g. "atan:2".

    Args:
        name: of the argument, for the message.
        text: shape of the surrogate, a colon, and its inverse width, above 0; see functional.integrate_fire.

    Raises:
        ValueError: the text says something else.
    """
    return _name_and_number(name, text, SURROGATES, "a shape and its alpha above 0, as in 'atan:2'")


def maker_of(text: str) -> Callable[[], Rule] | None:
    """Return what makes the rule that a text names, with a number or without: "assg", "assg:0.4".

    Returns:
        None where the text is a shape and its alpha; see shape_and_alpha.

    Raises:
        ValueError: the text says something else.
    """
    rule, colon, _ = str(text).partition(":")
    if check.one_of("surrogate", rule, (*SURROGATES, *RULES)) in SURROGATES:
        shape_and_alpha("surrogate", text)
        return None
    if colon and rule in _WITHOUT_A_NUMBER:
        raise ValueError(f"surrogate has {text!r}, expected {rule!r} alone.")
    numbers = (_name_and_number("surrogate", text, RULES, f"a number above 0, or {rule!r} alone")[1],) if colon else ()
    RULES[rule](*numbers)  # refuses a number that is out of its range
    return lambda: RULES[rule](*numbers)


def _name_and_number(name, text, allowed, expected):
    shape, _, number = str(text).partition(":")
    check.one_of(name, shape, allowed)
    try:
        return shape, check.number(name, float(number), above=0)
    except ValueError:
        raise ValueError(f"{name} has {text!r}, expected {expected}.") from None


@contextlib.contextmanager
def surrogate_of(network: Callable, text: str | None) -> Iterator[list[Rule]]:
    """Give all neurons of a network another surrogate, and their own back on leaving, also after an exception.

    Args:
        network: a module with neurons of fastsnn.nn.
        text: as for maker_of; None changes nothing.

    Yields:
        The rules that neurons go by, one for each layer; none where a shape and its alpha say it all.

    Raises:
        ValueError: the text is wrong, or there are no such neurons.
    """
    if text is None:
        yield []
        return
    make = maker_of(text)
    nodes = [node for node in network.modules() if isinstance(node, IFNode)] if isinstance(network, nn.Module) else []
    if not nodes:
        raise ValueError(f"surrogate is {text!r}, but network has no neurons of fastsnn.nn to give it to.")
    if make is None:
        with seen_through(network, *shape_and_alpha("surrogate", text)):
            yield []
        return
    for node in learned_neurons(network):
        node.read()  # a rule takes constants
    kinds = [type(node) for node in nodes]
    try:
        for node in nodes:
            node.__class__, node.rule = SeenNode, make()
        yield [node.rule for node in nodes]
    finally:
        for node, kind in zip(nodes, kinds, strict=True):
            node.__class__ = kind
            vars(node).pop("rule", None)
