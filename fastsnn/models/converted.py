"""What a converted network is made of: the user's own forward(), around layers and neurons of this package.

A forward() in single-step mode sees one step [B, ...]. Here it runs once, on all steps as one batch [T*B, ...], and the
neurons in it unfold time again: parts that are `folded`. In multi-step mode it sees time first, [T, B, ...].
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..nn import Dropout, IFNode, chained, is_watched


class _Call(NamedTuple):
    net: nn.Module
    steps: int
    met: set[int]  # ids of the neurons that have been called


_calls: ContextVar[_Call | None] = ContextVar("fastsnn_converted_call", default=None)


class Converted(nn.Module):
    """A network that from_spikingjelly has made: what it takes, e.g. [T, B, C, H, W] -> logits [B, classes].

    It keeps no state between calls: every call starts at rest, and nothing is to be reset.

    Attributes:
        net: the user's network, with converted parts.
        folded: whether its forward() is in single-step mode; it then takes all steps at once all the same.
    """

    def __init__(self, net: nn.Module, folded: bool):
        super().__init__()
        self.net, self.folded = net, folded
        self.training = net.training

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        """Return logits [B, classes]: the mean over time, where the user's network returns every step.

        Raises:
            ValueError: it returns something else.
        """
        steps = self.forward_sequence(x_seq)
        if steps.dim() == 2:
            return steps
        images = x_seq.dim() == 4 and steps.shape[1:2] == x_seq.shape[:1]
        if steps.dim() != 3 or not (images or steps.shape[:2] == x_seq.shape[:2]):
            raise ValueError(
                f"net returns {list(steps.shape)} for {list(x_seq.shape)}, expected [T, B, classes] or [B, classes]."
            )
        return steps.mean(0)

    def forward_sequence(self, x_seq: torch.Tensor) -> torch.Tensor:
        """Return what the user's network returns; in single-step mode that of every step, [T, B, classes].

        Raises:
            RuntimeError: the forward() calls neurons twice, which would need their voltage in between.
            ValueError: images have come without time, for a forward() in single-step mode.
        """
        if self.folded and x_seq.dim() == 4 and any(isinstance(module, nn.Conv2d) for module in self.net.modules()):
            raise ValueError(
                f"x_seq has shape {list(x_seq.shape)}, expected [T, B, C, H, W]: time comes first, also for a network "
                "in single-step mode. A forward() that repeats images over time itself is to do so in multi-step mode."
            )
        with _call(_Call(self.net, x_seq.shape[0], set())):
            if not self.folded:
                return self.net(x_seq)
            return self.net(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2])


class Part(nn.Module):
    """A layer or neurons, in the place of SpikingJelly's: in its forward() as those are in theirs.

    Attributes:
        module: a layer of torch's that knows no time, neurons or Dropout; their attributes are also the part's.
        folded: whether it stands in single-step mode.
        step_mode: "s" or "m", SpikingJelly's name of that, for a forward() that asks.
    """

    def __init__(self, module: nn.Module, folded: bool):
        super().__init__()
        self.module, self.folded, self.step_mode = module, folded, "s" if folded else "m"
        self.training = module.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it."""
        if isinstance(self.module, nn.Linear):
            return self.module(x)  # which takes any axes, in both modes
        return _apply([self.module], x, self.folded)

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


class Line(nn.Sequential):
    """A Sequential of parts in one mode: those that follow each other are computed together, see nn.chained."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply them."""
        if any(map(is_watched, self)):
            return super().forward(x)
        return _apply([part.module for part in self], x, self[0].folded)


class Container(nn.Sequential):
    """Single-step modules in a multi-step network: [T, B, ...] -> [T, B, ...]."""

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        """Apply them to every step."""
        call = _calls.get()
        met = set() if call is None else call.met
        with _call(_Call(self if call is None else call.net, x_seq.shape[0], met)):
            return super().forward(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2])


class Voting(nn.Module):
    """The mean of each class's outputs: [B, classes * size] -> [B, classes]."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return it."""
        return F.avg_pool1d(x.unsqueeze(1), self.size, self.size).squeeze(1)


def _apply(modules: list[nn.Module], x: torch.Tensor, folded: bool) -> torch.Tensor:
    call = _calls.get()
    for module in modules:
        if call is not None and isinstance(module, IFNode):
            _meet(call, module)
    if not folded:
        return chained(modules, x)
    if not any(isinstance(module, (IFNode, Dropout)) for module in modules):
        return chained(modules, x[None])[0]  # knows no time
    if call is None:
        raise RuntimeError("Neurons in single-step mode know of time only within their network: call that as a whole.")
    return chained(modules, x.unflatten(0, (call.steps, -1))).flatten(0, 1)


def _meet(call: _Call, neuron: IFNode) -> None:
    if id(neuron) in call.met:
        names = (name for name, module in call.net.named_modules() if module is neuron)
        raise RuntimeError(
            f"The neurons {next(names, '').removesuffix('.module')!r} are called twice in one forward pass and would "
            "need their voltage in between, which is not kept: give all steps to the network at once, and use neurons "
            "of their own for each call."
        )
    call.met.add(id(neuron))


@contextlib.contextmanager
def _call(call: _Call) -> Iterator[None]:
    token = _calls.set(call)
    try:
        yield
    finally:
        _calls.reset(token)
