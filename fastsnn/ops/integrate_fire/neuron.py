"""What an integrate-and-fire neuron is: the constants that every backend receives."""

from __future__ import annotations

import functools
from typing import NamedTuple

from .. import check

SURROGATES = ("atan", "sigmoid", "triangle", "rectangle")
JUNCTIONS = ("add", "and", "iand", "and_not")


class Neuron(NamedTuple):
    """Constants of one layer of neurons.

    Attributes:
        v_threshold: voltage at which a neuron fires, `h >= v_threshold`.
        v_reset: voltage after a spike (hard reset) and at the start; None subtracts v_threshold instead (soft reset)
            and starts at 0.
        tau: membrane time constant in steps of a leaky neuron (LIF), above 1; None does not leak (IF).
        decay_input: whether the leak of an LIF neuron also divides its input by tau.
        surrogate: shape of the spike's gradient, one of SURROGATES.
        alpha: inverse width of the surrogate: the larger, the narrower.
        detach_reset: whether the reset is left out of the backward pass.
    """

    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    tau: float | None = None
    decay_input: bool = True
    surrogate: str = "atan"
    alpha: float = 2.0
    detach_reset: bool = True

    @property
    def v_rest(self) -> float:
        """Voltage at the start, and towards which an LIF neuron leaks."""
        return 0.0 if self.v_reset is None else self.v_reset


def checked(neuron: Neuron) -> Neuron:
    """Return `neuron` with plain Python numbers, or raise with the name of the constant that is wrong."""
    try:
        return _checked(*neuron)
    except TypeError:  # not hashable, or of a wrong type: say which
        return _checked.__wrapped__(*neuron)


@functools.lru_cache(maxsize=256, typed=True)  # 8 us a call otherwise, as much as a small layer's kernel takes
def _checked(*constants) -> Neuron:
    neuron = Neuron(*constants)
    return Neuron(
        v_threshold=check.number("v_threshold", neuron.v_threshold),
        v_reset=None if neuron.v_reset is None else check.number("v_reset", neuron.v_reset),
        tau=None if neuron.tau is None else check.number("tau", neuron.tau, above=1),
        decay_input=bool(neuron.decay_input),
        surrogate=check.one_of("surrogate", neuron.surrogate, SURROGATES),
        alpha=check.number("alpha", neuron.alpha, above=0),
        detach_reset=bool(neuron.detach_reset),
    )
