"""Spiking neurons as modules. They keep no state: every call starts at rest, nothing is to be reset."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from ..ops.integrate_fire import Neuron, checked, integrate_fire
from .precision import current

CONSTANTS = ("v_threshold", "v_reset", "surrogate", "alpha", "detach_reset")  # of an IFNode, as networks take them


class IFNode(nn.Module):
    """Integrate-and-fire neurons, multistep: [T, B, ...] -> spikes [T, B, ...] (Fang et al. 2021, eq. 1 to 3).

    Args:
        v_threshold: firing threshold.
        v_reset: voltage after a spike and at the start; None for soft reset.
        surrogate: "atan", "sigmoid", "triangle" or "rectangle"; the paper's networks use atan.
        alpha: inverse width of the surrogate.
        detach_reset: keep the reset out of the backward pass, as SEW-ResNets do (SpikingJelly's default is False).

    Raises:
        ValueError, TypeError: a constant is out of range; the message names it.
    """

    def __init__(
        self,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        surrogate: str = "atan",
        alpha: float = 2.0,
        detach_reset: bool = True,
    ):
        super().__init__()
        self.neuron = checked(Neuron(v_threshold, v_reset, None, True, surrogate, alpha, detach_reset))

    def forward(
        self,
        x_seq: torch.Tensor,
        *,
        scale: torch.Tensor | None = None,
        shift: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
        junction: str | None = None,
    ) -> torch.Tensor:
        """Return spikes; the options are those of functional.integrate_fire."""
        options = {"scale": scale, "shift": shift, "residual": residual, "junction": junction}
        backend = "reference" if current() == "reference" else None
        return integrate_fire(x_seq, self.neuron, backend=backend, **options)

    def extra_repr(self) -> str:
        """List the constants."""
        return ", ".join(f"{name}={value!r}" for name, value in self.neuron._asdict().items() if value is not None)


class LIFNode(IFNode):
    """Leaky integrate-and-fire neurons; arguments as in IFNode, and two more.

    Args:
        tau: membrane time constant in steps, above 1; 2 as in SpikingJelly.
        decay_input: whether the input is divided by tau as well.
        **constants: as in IFNode.
    """

    def __init__(self, tau: float = 2.0, decay_input: bool = True, **constants):
        super().__init__(**constants)
        self.neuron = checked(self.neuron._replace(tau=tau, decay_input=decay_input))


@contextlib.contextmanager
def seen_through(network: nn.Module, surrogate: str, alpha: float) -> Iterator[None]:
    """Give all neurons of a network another surrogate inside the block, as an attacker may who chooses it.

    Args:
        network: whose IFNodes and LIFNodes are meant; its outputs stay the same.
        surrogate: as in IFNode.
        alpha: as in IFNode.

    Raises:
        ValueError, TypeError: surrogate or alpha is out of range.
    """
    nodes = [(node, node.neuron) for node in network.modules() if isinstance(node, IFNode)]
    try:
        for node, neuron in nodes:
            node.neuron = checked(neuron._replace(surrogate=surrogate, alpha=alpha))
        yield
    finally:
        for node, neuron in nodes:
            node.neuron = neuron
