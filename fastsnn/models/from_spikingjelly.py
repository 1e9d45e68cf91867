"""From a network of SpikingJelly's layers and neurons to one of ours, with the same weights and answers.

SpikingJelly is recognised by the names of its classes, so that nothing here imports it.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from torch import nn

from ..nn import Dropout, IFNode, Junction, LIFNode
from .converted import Container, Converted, Line, Part, Voting
from .resnet import BasicBlock, Bottleneck, ResNet
from .sew_resnet import JUNCTIONS, SEWResNet
from .spiking_resnet import SpikingResNet

_SURROGATES = {"ATan": "atan", "Sigmoid": "sigmoid", "PiecewiseQuadratic": "triangle", "Rect": "rectangle"}
_LAYERS = {  # torch's, which SpikingJelly derives its own from: they know no time and keep nothing
    *("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Linear", "Flatten"),
    *("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "Upsample"),
    *("MaxPool1d", "MaxPool2d", "MaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d"),
    *("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d"),
}
_CONTAINERS = ("SeqToANNContainer", "MultiStepContainer", "StepModeContainer")
_MIXINS = ("StepModule", "SingleStepModule", "MultiStepModule")  # they only name a mode
_BLOCKS = {"BasicBlock": BasicBlock, "Bottleneck": Bottleneck}


def from_spikingjelly(net: nn.Module) -> nn.Module:
    """Return a network of ours with the weights and answers of a SpikingJelly network (0.0.0.0.14 or 2.0).

    SpikingJelly's SEWResNet and SpikingResNet become ours. Any other module is copied, its forward() is kept, and the
    layers and neurons in it are replaced; in a Sequential they are computed together, layer by layer. The result takes
    all steps at once, [T, B, ...], also where `net` is in single-step mode, and returns logits [B, classes], the mean
    over time; `forward_sequence` returns what `net` returns for every step. It keeps no state between calls: every call
    starts at rest, whatever voltage the neurons of `net` have, and there is nothing to reset. So a forward() that calls
    neurons more than once, as in a loop over time, is refused when it runs. `net` is left as it is.

    Answers, and gradients, are those of SpikingJelly on a network that has been reset. 0.0.0.0.14's neurons have that
    gradient in train mode, and none in eval mode; for Sigmoid, decay_input=False, and a v_reset other than 0 that is
    not detached, it is rounded otherwise there (by 3e-7 of the largest at one layer of neurons). In train mode batch
    statistics are taken over all steps, as in SpikingJelly's multi-step mode.

    Args:
        net: made of SpikingJelly's IFNode and LIFNode (surrogates ATan, Sigmoid, PiecewiseQuadratic, Rect), its layers
            that derive from torch's, Dropout, VotingLayer and containers, and of modules without state.

    Returns:
        SEWResNet, SpikingResNet or models.converted.Converted.

    Raises:
        TypeError: net is not a module.
        ValueError: some parts of it cannot be converted; the message names each and says why.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net is of type {type(net).__name__}, expected a torch.nn.Module.")
    found = _Found()
    found.visit(net, "", contained=False)
    if len(found.modes) > 1:
        single, multi = found.modes["s"], found.modes["m"]
        found.problems.append(f"{single} is in step_mode 's' and {multi} in 'm'")
    if not found.problems and not any(
        isinstance(part, IFNode) for one in found.parts.values() for part in one.modules()
    ):
        found.problems.append("it holds no IFNode or LIFNode of SpikingJelly's")
    if found.problems:
        raise ValueError(f"net cannot be converted: {'; '.join(found.problems)}.")
    return _resnet(net, found.parts) or Converted(copy.deepcopy(net, found.memo), folded="s" in found.modes)


class _Found:
    """What has been found in a network so far.

    Attributes:
        parts: by the id of a module of theirs, what takes its place.
        memo: of copy.deepcopy, which so puts our parts in place of theirs, and keeps tied weights tied.
        modes: of the neurons outside of containers, with the name of the first in each.
        problems: what cannot be converted, and why.
    """

    def __init__(self):
        self.parts: dict[int, nn.Module] = {}
        self.memo: dict[int, object] = {}
        self.modes: dict[str, str] = {}
        self.problems: list[str] = []

    def visit(self, module: nn.Module, name: str, contained: bool) -> None:
        """Find what takes the place of a module and of those in it; `contained`: in a container of single steps."""
        base = _spikingjelly_class(module)
        if id(module) in self.parts:
            if base is not None and base.__name__ in ("IFNode", "LIFNode"):
                self.problems.append(f"{name} are neurons that stand in several places")
            return
        if base is not None and base.__name__ in _CONTAINERS and base is type(module):
            self._container(module, name, contained)
        elif base is not None:
            try:
                self._part(module, name, base, contained)
            except (ValueError, TypeError) as error:
                self.problems.append(f"{name or 'net'} ({type(module).__name__}): {str(error).rstrip('.')}")
        else:
            for child_name, child in _children(module):
                self.visit(child, f"{name}.{child_name}".lstrip("."), contained)
            if type(module) is nn.Sequential:
                self._sequential(module)

    def _part(self, module: nn.Module, name: str, base: type, contained: bool) -> None:
        if base is not type(module):
            raise ValueError(f"a class of its own, derived from SpikingJelly's {base.__name__}")
        inner = _converted(module, self.memo)
        inner.training = module.training
        self._replace(module, Part(inner, folded=module.step_mode == "s"))
        if isinstance(inner, IFNode) and not contained:
            self.modes.setdefault(module.step_mode, name or "net")

    def _container(self, module: nn.Sequential, name: str, contained: bool) -> None:
        multi = getattr(module, "_step_mode", "m") == "m"  # some can have that mode only, and do not say it
        for child_name, child in _children(module):
            self.visit(child, f"{name}.{child_name}".lstrip("."), contained or multi)
        children = OrderedDict((key, copy.deepcopy(child, self.memo)) for key, child in _children(module))
        neurons = [ours for child in children.values() for ours in child.modules() if isinstance(ours, IFNode)]
        step_by_step = type(module).__name__ == "MultiStepContainer" or getattr(module, "stateful", False)
        if neurons and multi and not step_by_step:
            self.problems.append(f"{name} ({type(module).__name__}): it takes all steps of its neurons for one batch")
        self._replace(module, Container(children) if multi else nn.Sequential(children))

    def _sequential(self, module: nn.Sequential) -> None:
        children = [(name, self.parts.get(id(child))) for name, child in _children(module)]
        parts = [part for _, part in children if isinstance(part, Part)]
        if parts and len(parts) == len(module) and len({part.folded for part in parts}) == 1:
            self._replace(module, Line(OrderedDict(children)))

    def _replace(self, module: nn.Module, ours: nn.Module) -> None:
        ours.training = module.training
        self.parts[id(module)] = self.memo[id(module)] = ours


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules in a module by name, also those that come twice."""
    return [(name, child) for name, child in module._modules.items() if child is not None]


def _spikingjelly_class(module: nn.Module) -> type | None:
    """Return the class of SpikingJelly's that a module is or derives from; its models are networks as any other."""
    for base in type(module).__mro__:
        package, *rest = base.__module__.split(".")
        if package == "spikingjelly" and not {"model", "surrogate"} & set(rest) and base.__name__ not in _MIXINS:
            return base
    return None


def _converted(module: nn.Module, memo: dict[int, object]) -> nn.Module:
    """Return ours for a layer or neurons of theirs; ValueError says why there is none."""
    name, area = type(module).__name__, type(module).__module__.split(".")
    if "neuron" in area and name in ("IFNode", "LIFNode"):
        return _neurons(module)
    if "layer" in area and name in _LAYERS:
        return _plain(module, getattr(nn, name), memo)
    if "layer" in area and name in ("Dropout", "Dropout2d"):
        return Dropout(module.p, channels=name == "Dropout2d")
    if "layer" in area and name == "VotingLayer":
        return Voting(module.voting_size)
    raise ValueError("nothing here computes it")


def _neurons(module: nn.Module) -> IFNode:
    theirs = module.surrogate_function
    surrogate = _SURROGATES.get(type(theirs).__name__) if "surrogate" in type(theirs).__module__.split(".") else None
    if surrogate is None:
        raise ValueError(f"its surrogate is {type(theirs).__name__}, expected one of {', '.join(_SURROGATES)}")
    if not theirs.spiking:
        raise ValueError("its surrogate does not spike (spiking=False)")
    if getattr(module, "_neuron_precision", None) is not None:
        raise ValueError("its voltages are to have another precision than float32")
    if module.store_v_seq:
        raise ValueError("it is to store its voltages (store_v_seq=True), which are not kept here")
    names = ("v_threshold", "v_reset", "detach_reset")
    constants = {name: getattr(module, name) for name in names} | {"surrogate": surrogate, "alpha": theirs.alpha}
    if type(module).__name__ == "IFNode":
        return IFNode(**constants)
    return LIFNode(module.tau, module.decay_input, **constants)


def _plain(module: nn.Module, kind: type[nn.Module], memo: dict[int, object]) -> nn.Module:
    """Return the layer of torch's that a layer of theirs derives from, with copies of its tensors and settings."""
    if getattr(module, "return_indices", False):
        raise ValueError("it returns indices as well")
    ours = kind.__new__(kind)
    for name, value in vars(module).items():
        if name != "_step_mode":
            ours.__dict__[name] = copy.deepcopy(value, memo)
    return ours


def _resnet(net: nn.Module, parts: dict[int, nn.Module]) -> ResNet | None:
    """Return our ResNet for one of theirs that is as their builders make it, up to its layers' settings; or None."""
    family = {"SEWResNet": SEWResNet, "SpikingResNet": SpikingResNet}.get(type(net).__name__)
    if family is None or not _is_their_model(net) or "forward" in vars(net):
        return None
    stages = [getattr(net, f"layer{i}") for i in range(1, 5)]
    blocks = [block for stage in stages for block in stage]
    kind = _BLOCKS.get(type(blocks[0]).__name__)
    if kind is None or not all(_is_their_model(block) and type(block) is type(blocks[0]) for block in blocks):
        return None
    cnfs = {getattr(block, "cnf", None) for block in blocks}
    how = {"num_classes": 1, "width": 1, "in_channels": net.conv1.in_channels}
    if family is SEWResNet:
        if len(cnfs) != 1 or not cnfs <= set(JUNCTIONS[kind]):
            return None
        how["cnf"] = cnfs.pop()
    with torch.device("meta"):  # which draws no random numbers: every layer is to be replaced
        ours = family(kind, tuple(map(len, stages)), **how)
    theirs = {name: parts[id(module)].module for name, module in net.named_modules() if _is_part(parts, module)}
    own = {name: module for name, module in ours.named_modules() if not isinstance(module, Junction)}  # theirs are none
    if set(theirs) != {name for name, module in own.items() if not list(module.children())}:
        return None
    for name, module in theirs.items():
        ours.set_submodule(name, module)
    for name in own:
        ours.get_submodule(name).training = net.get_submodule(name).training
    return ours


def _is_part(parts: dict[int, nn.Module], module: nn.Module) -> bool:
    return isinstance(parts.get(id(module)), Part)


def _is_their_model(module: nn.Module) -> bool:
    package, *rest = type(module).__module__.split(".")
    return package == "spikingjelly" and "model" in rest
