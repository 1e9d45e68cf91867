"""The attacker's surrogate: an attack may take another gradient of a spike than the network was trained with.

The forward pass, and so every spike, stays what it is (Ozdenizci and Legenstein 2024 take the worst of several).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from torch import nn

from ..nn import IFNode, seen_through
from ..ops import check
from ..ops.integrate_fire.neuron import SURROGATES


def shape_and_alpha(name: str, text: str) -> tuple[str, float]:
    """Return shape and alpha of e.g. "atan:2".

    Args:
        name: of the argument, for the message.
        text: shape of the surrogate, a colon, and its inverse width, above 0; see functional.integrate_fire.

    Raises:
        ValueError: the text says something else.
    """
    shape, _, alpha = str(text).partition(":")
    check.one_of(name, shape, SURROGATES)
    try:
        return shape, check.number(name, float(alpha), above=0)
    except ValueError:
        raise ValueError(f"{name} has {text!r}, expected a shape and its alpha above 0, as in 'atan:2'.") from None


@contextlib.contextmanager
def surrogate_of(network: Callable, text: str | None) -> Iterator[None]:
    """Give all neurons of a network another surrogate, and their own back on leaving, also after an exception.

    Args:
        network: a module with neurons of fastsnn.nn.
        text: as for shape_and_alpha; None changes nothing.

    Raises:
        ValueError: the text is wrong, or there are no such neurons.
    """
    if text is None:
        yield
        return
    shape, alpha = shape_and_alpha("surrogate", text)
    if not isinstance(network, nn.Module) or not any(isinstance(node, IFNode) for node in network.modules()):
        raise ValueError(f"surrogate is {text!r}, but network has no neurons of fastsnn.nn to give it to.")
    with seen_through(network, shape, alpha):
        yield
