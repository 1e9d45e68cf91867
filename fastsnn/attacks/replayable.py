"""Which attacks can be replayed, and what a recording of their step takes for granted: it sees no change but in place.

What may differ between attacks is either in the kind of a recording, so that each has its own, or in the traits of a
network or its prepared layers, so that recordings go when it changes. Values that are read in place may change freely.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable

import torch
from torch import nn

from ..engine import Prepared
from ..engine.layer import PreparedLayer
from ..nn import IFNode, LearnedNode, in_force
from ..nn.precision import current
from ..ops import dispatcher, layout, library
from ..ops.attack_step import default_batch_axis
from .gradient import InputGradient
from .independence import are_known


def is_replayable(gradient: InputGradient, first: torch.Tensor, most_samples: int) -> bool:
    """Tell whether a replay surely does what a call does: in known modules, and nobody listens to the calls."""
    network = gradient.module
    if not first.numel() or first.shape[default_batch_axis(first)] > most_samples:
        return False
    if not are_known(network, in_force.counting()):
        return False
    if torch._C._len_torch_function_stack() or (first.is_cpu and _reads_values(network)):
        return False  # who overrides torch's functions would not be asked; a tape sees no value
    if dispatcher.is_needed(first) or torch.is_autocast_enabled(first.device.type) or torch.is_anomaly_enabled():
        return False
    # a cumulative average asks on the host how many batches there were
    norms = (module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    return gradient.bn == "frozen" or all(norm.momentum is not None for norm in norms)


def _reads_values(network: nn.Module) -> bool:
    return any(isinstance(module, LearnedNode) for module in network.modules())


def kind_of(gradient: InputGradient, first: torch.Tensor, axis: int) -> tuple:
    """Return what tells recordings apart beside the number of samples; all inputs are float32."""
    sizes = (axis, *first.shape[:axis], *first.shape[axis + 1 :], layout.is_channels_last(first))
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    settings = (torch.are_deterministic_algorithms_enabled(), cudnn.enabled, cudnn.benchmark, cudnn.deterministic)
    products = (cudnn.conv.fp32_precision, matmul.fp32_precision, current(), library.has_bf16())
    neurons = tuple(node.neuron for node in gradient.module.modules() if isinstance(node, IFNode))
    counting = in_force.counting()
    climbed = gradient.bn, isinstance(gradient.network, Prepared), neurons
    climbed = *climbed, None if counting is None else weakref.ref(counting)
    return sizes, first.device, climbed, settings, products


class Traits:
    """What recordings took for granted: where a network's tensors lie, and the constants of its modules."""

    def __init__(self, network: nn.Module):
        modules = list(network.modules())
        self._places, self._all = _places(modules), _all(modules)
        self._constants = [(type(module), _constants(module)) for module in modules]

    def are_of(self, network: nn.Module) -> bool:
        """Tell whether a network still has them; where nothing at all has changed, no constant is looked at."""
        modules = list(network.modules())
        if _places(modules) != self._places:
            return False
        return _all(modules) == self._all or [(type(one), _constants(one)) for one in modules] == self._constants


_PLAIN = frozenset((bool, int, float, str, type(None)))


def _places(modules: list[nn.Module]) -> list[tuple | None]:
    kinds = (kind for module in modules for kind in (module._parameters, module._buffers))
    tensors = (tensor for kind in kinds for tensor in kind.values())
    return [one if one is None else (one.data_ptr(), one.shape, one.stride(), one.dtype) for one in tensors]


def _all(modules: list[nn.Module]) -> list[object]:
    """Return what modules are and hold: by value what is plain and what lists hold, which may change as they are."""
    found = [value for module in modules for value in vars(module).values()]
    within = [one for value in found if type(value) is list for one in (len(value), *value)]
    return [*map(type, modules), *(value if type(value) in _PLAIN else id(value) for value in found + within)]


def _constants(module: nn.Module) -> dict[str, object]:
    """Return the module's public attributes, by value where they are plain; its mode follows from bn."""
    found = {}
    for name, value in vars(module).items():
        if name not in ("training", "neuron") and not name.startswith("_"):  # neurons' constants are in the kind
            plain = isinstance(value, (int, float, str, tuple, type(None)))
            found[name] = value if plain else tuple(value) if isinstance(value, list) else id(value)
    return found


def rearranges(gradient: InputGradient) -> bool:
    """Tell whether the engine computes layers, from weights that it has rearranged."""
    return isinstance(gradient.network, Prepared) and current() != "reference"


def layers_of(gradient: InputGradient) -> dict[Hashable, PreparedLayer]:
    """Return the layers whose weights are rearranged so far."""
    return gradient.network.layers() if isinstance(gradient.network, Prepared) else {}
