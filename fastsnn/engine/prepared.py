"""Turns a network into the fastest form with the same answers, layer by layer, as it is called.

`prepare(network)` gives a callable like the network. At the first call with frozen weights it sees every product's
layer and shape, chooses a form by a fixed rule (forms.py), rearranges the weights once, and keeps that for later calls.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from ..nn import forms as in_force
from . import forms


class Layer(NamedTuple):
    """What was chosen for a layer: a row of `explain()`.

    Attributes:
        name: the layer's name in the network, or its class where the network is a bare callable.
        shape: of its input frames, [C, H, W]; frames of all steps and samples go together.
        dtype: of its products.
        form: how it is computed.
        why: what decided that.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    form: str
    why: str


class _Chosen(NamedTuple):
    weight: weakref.ref
    version: int
    layer: Layer
    form: forms.Form


def prepare(network: Callable[[torch.Tensor], torch.Tensor]) -> Prepared:
    """Return `network` in the fastest form with the same answers, for passes with frozen weights.

    The answers are those of precision "fp32" or "fast" (whichever is in force when it is called), up to the order in
    which sums are added; under "reference", and where weights need gradients, the network runs as it is.

    Args:
        network: a module of this package, or a callable around one.
    """
    return network if isinstance(network, Prepared) else Prepared(network)


class Prepared:
    """A network in its fastest form; call it as the network. Made by `prepare`.

    Rearranged weights are kept from call to call. Weights that are replaced or changed through torch's counted
    operations are noticed; after a change behind torch's back (`.data`, fused optimizers) call `forget`. Attacks do.
    """

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor]):
        self.network = network
        self._chosen: dict[tuple, _Chosen] = {}
        modules = network.named_modules() if isinstance(network, nn.Module) else ()
        self._names = {id(module): name for name, module in modules}

    def forget(self) -> Prepared:
        """Drop all rearranged weights, so that the next call reads the network's own; return self."""
        self._chosen.clear()
        return self

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the network returns for x."""
        with in_force.chosen_by(self._choose):
            return self.network(x)

    def explain(self) -> list[Layer]:
        """Return, for the calls so far, the form of every layer and why, in the order of the network."""
        return [chosen.layer for chosen in self._chosen.values()]

    def _choose(self, module: nn.Conv2d, frames: torch.Tensor, dtype: torch.dtype) -> forms.Form | None:
        weight = module.weight
        if torch.is_grad_enabled() and weight.requires_grad:
            return None  # a form's weights are copies: their gradient would not reach the layer's
        if not frames.numel() or type(module) is not nn.Conv2d:
            return None  # a subclass may compute something else
        key = (id(module), frames.shape[1:], dtype, frames.device)
        chosen = self._chosen.get(key)
        if chosen is None or chosen.weight() is not weight or chosen.version != weight._version:
            with torch.no_grad():
                name, why, form = forms.choose(module, frames.shape, dtype)
            short = str(dtype).removeprefix("torch.")
            layer = Layer(self._names.get(id(module), "Conv2d"), tuple(frames.shape[1:]), short, name, why)
            chosen = self._chosen[key] = _Chosen(weakref.ref(weight), weight._version, layer, form)
        return chosen.form
