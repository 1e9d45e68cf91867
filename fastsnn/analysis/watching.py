"""Hooks that see the gradient at every layer's input and output, in whatever backward passes happen meanwhile.

A watched layer is never fused away (see nn.is_watched), so that each has its own gradient, as with plain hooks on
SpikingJelly's networks. Every backward pass can be repeated on the same graph with the gradient at the logits scaled
up by powers of two: nothing is rounded differently, but what underflowed to zero no longer does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from ..nn import IFNode, Junction, PhaseEncoder, in_force
from ..nn.in_force import LayerCounts
from ..nn.layers import hooks_on
from ..ops.attack_step import default_batch_axis
from .tally import Book, Seen, Tally, Uncounted

NETWORK = "network"  # the row whose input is x and whose output are the logits
_SCALE = (
    64  # binary digits: the largest number at the logits becomes 2^63, and layers may still make it 2^64 times larger
)
_PLACES = {  # of LayerCounts, what is at a part's input and output
    kind: tuple(tuple(map(LayerCounts._fields.index, side)) for side in sides)
    for kind, sides in {
        "conv": ([], ["product"]),  # at its input, gradients are counted later: see tally.Uncounted
        "norm": (["product"], ["behind_norm"]),
        "neuron": (["behind_norm"], ["spikes"]),
        "junction": (["spikes", "residual"], ["output"]),
        "current": (["behind_norm", "residual"], ["behind_norm"]),  # the sum's gradient is that of both summands
    }.items()
}
_KINDS = (
    (nn.modules.conv._ConvNd, "convolution"),
    (nn.modules.batchnorm._BatchNorm, "batch norm"),
    (nn.modules.pooling._MaxPoolNd, "max pool"),
    (nn.modules.pooling._AvgPoolNd, "average pool"),
    (nn.modules.pooling._AdaptiveAvgPoolNd, "global pool"),
    (nn.Linear, "linear"),
    (IFNode, "neuron"),
    (Junction, "junction"),
    (PhaseEncoder, "encoder"),
)
_COUNTED = ("convolution", "batch norm", "neuron", "junction", "max pool", "average pool")  # kinds of layers


class Watched:
    """What hooks have seen; made by `watching`.

    Once a pass has been seen, what others like it do in Python changes nothing: all sums are tensors that are added to
    in place. So passes may be replayed, but for those that look for underflow, which asks for values.

    Attributes:
        sides: for each layer, in the order of their calls, the tallies of its input and its output.
        kinds: of the layers.
        T: time steps; None before the first pass, 1 where the network knows none.
        may_replay: see nn.in_force.Counting.
    """

    def __init__(self, network: nn.Module, underflow: bool, in_kernels: bool):
        self.network, self.underflow, self.in_kernels = network, underflow, in_kernels
        self.may_replay = in_kernels and not underflow
        self._leaves = list(leaves(network))
        self.names = {id(module): name for name, module in self._leaves}
        self.kinds = {NETWORK: "network"} | {name: kind_of(module) for name, module in self._leaves}
        self.sides: dict[str, tuple[Tally, Tally]] = {}
        self.books: list[Book] = []
        self.T: int | None = None
        self.y: torch.Tensor | None = None
        self._again, self._called, self._x = False, {}, None
        self._uncounted = Uncounted()
        self._plans: dict[tuple[str, ...], list] = {}  # of layers: tallies, and what of LayerCounts they take

    def labelled(self, y: torch.Tensor) -> None:
        """Tell the labels [B] of the batch that comes next."""
        self.y = y

    def hooks(self) -> list:
        """Put hooks on the network and return their handles."""
        handles = [
            self.network.register_forward_pre_hook(self._before),
            self.network.register_forward_hook(self._after),
        ]
        for name, module in self._leaves:
            if self.in_kernels and self.kinds[name] in _COUNTED:
                continue
            handles.append(module.register_forward_hook(self._calling(name)))
            handles.append(module.register_full_backward_hook(self._seeing(name)))
        self._own = {handle.id for handle in handles}
        return handles

    def listens_alone(self, module: nn.Module) -> bool:
        """See nn.in_force.Counting."""
        return all(number in self._own for hooks in hooks_on(module) for number in hooks)

    def layer(self, conv, norm, neuron, junction, T: int):
        """See nn.in_force.Counting."""
        junction = junction if isinstance(junction, nn.Module) else None
        charges = junction is not None and junction.kind == "current"
        order = (conv, norm, junction, neuron) if charges else (conv, norm, neuron, junction)
        parts = [part for part in order if part is not None]
        names = [self._call(part, T) for part in parts]

        places = {
            part: _PLACES[kind] for kind, part in zip(("conv", "norm", "neuron"), (conv, norm, neuron), strict=True)
        }
        places[junction] = _PLACES["current" if charges else "junction"]
        plan = self._plans.setdefault(tuple(names), [])

        def take(grad_out: torch.Tensor, counts: LayerCounts, grad_x: torch.Tensor | None) -> None:
            if not plan:  # tallies are made when the first forward pass is over
                for name, part in zip(names, parts, strict=True):
                    plan.extend((tally, at) for tally, at in zip(self.sides[name], places[part], strict=True) if at)
            for tally, sides in plan:
                tally.add([counts[side] for side in sides], self._again)
            self._uncounted.counted(grad_out, counts.output)
            if grad_x is not None:
                self._uncounted.offer(grad_x, *grad_out.shape[:2], self.sides[names[0]][0], self._again)

        return take

    def around(self, module, x_seq, compute):
        """See nn.in_force.Counting."""
        name = self._call(module, x_seq.shape[0])
        x_seq = x_seq.view_as(x_seq)
        out = compute(x_seq)
        for side, tensor in enumerate((x_seq, out)):
            if tensor.requires_grad:
                tensor.register_hook(lambda grad, side=side: self._take(name, side, (grad,)))
        return out

    def _call(self, module: nn.Module, T: int) -> str:
        name = self.names[id(module)]
        self._called[name] = None
        self._T = self._T or T
        return name

    def read(self) -> list[Seen]:
        """Return what was seen at the input and the output of each layer, in the order of `sides`, by books."""
        self._settle()
        return [book.read() for book in self.books]

    def uncounted(self, seen: list[Seen]) -> list[str]:
        """Return the layers whose gradients should have been counted in kernels and were not."""
        samples = [samples for one in seen for samples in one.samples]
        counted = {name for name, there in zip(self.sides, samples[1::2], strict=True) if there}
        return [name for name, _ in self._leaves if self.kinds[name] in _COUNTED and name not in counted]

    def _settle(self) -> None:
        self._uncounted.settle()
        for book in self.books:
            book.settle()

    def forget(self) -> None:
        """Let go of the last pass's tensors, and of what was counted in one that failed."""
        self._x = None
        self._forget()

    def _forget(self) -> None:
        self._uncounted.forget()
        for book in self.books:
            book.forget()

    def _before(self, network, inputs):
        x = inputs[0]
        self._called, self._x = {NETWORK: None}, None
        self._T, self._B = (x.shape[0] if x.dim() == 5 else None), x.shape[default_batch_axis(x)]
        if not (torch.is_grad_enabled() and x.requires_grad):
            return None
        self._x = x.view_as(x)  # so that the hook goes with this pass
        self._x.register_hook(self._finish)
        return (self._x, *inputs[1:])

    def _calling(self, name):
        def called(module, inputs, output):
            self._called[name] = None
            if self._T is None and output.dim() == 5:
                self._T = output.shape[0]

        return called

    def _after(self, network, inputs, logits):
        if self._x is None or not logits.requires_grad:
            return None
        T = self._T or 1
        if self.T not in (None, T):
            raise ValueError(f"x has batches of {self.T} and of {T} time steps, expected the same everywhere.")
        self.T = T
        new, exact = [name for name in self._called if name not in self.sides], not self.in_kernels
        if new:
            book = Book(2 * len(new), T, logits.device)
            rows = range(0, 2 * len(new), 2)
            self.sides |= {
                name: (Tally(book, i, exact), Tally(book, i + 1, exact)) for i, name in zip(rows, new, strict=True)
            }
            self.books.append(book)
        # the hook holds what lies before it in the graph, and nothing that holds the hook: no cycle keeps a batch alive
        inner, values, x = torch.autograd.graph.get_gradient_edge(logits), logits.detach(), self._x
        logits = logits.view_as(logits)
        logits.register_hook(lambda grad: self._backward(grad, inner, values, x))
        return logits

    def _backward(self, grad, inner, logits, x):
        """See a pass begin, and go through it with larger numbers first."""
        self._forget()  # what one left that failed
        if self.underflow:
            self._again = True
            try:
                enlarged = enlarge(exact(grad, logits, self.y)).to(grad.dtype)
                self._take(NETWORK, 1, (enlarged,))
                torch.autograd.grad(inner, x, enlarged, retain_graph=True)
            finally:
                self._again = False
        self._take(NETWORK, 1, (grad,))

    def _finish(self, grad):
        """See a pass end."""
        self._take(NETWORK, 0, (grad,))
        self._settle()

    def _seeing(self, name):
        def seen(module, grad_input, grad_output):
            for side, gradients in enumerate((grad_input, grad_output)):
                there = [gradient for gradient in gradients if gradient is not None]
                if there:
                    self._take(name, side, there)

        return seen

    def _take(self, name, side, gradients):
        tally = self.sides[name][side]
        if self.in_kernels and len(gradients) == 1:
            steps = tally.steps(gradients[0], self._B)
            self._uncounted.offer(gradients[0], steps, self._B, tally, self._again)
        else:
            tally.take(gradients, self._B, self._again)


@contextlib.contextmanager
def watching(network: nn.Module, *, underflow: bool = True, in_kernels: bool = False) -> Iterator[Watched]:
    """Watch every backward pass through `network` inside the block, and yield what was seen.

    Args:
        network: whose leaves are watched; a neuron with its surrogate inside counts as a leaf.
        underflow: go through every pass once more with larger numbers, to tell underflow from structure.
        in_kernels: leave the layers that the engine computes to it, which counts their gradients as it writes them; all
            others have hooks.
    """
    watched = Watched(network, underflow, in_kernels)
    handles = watched.hooks()
    try:
        with in_force.counted_by(watched) if in_kernels else contextlib.nullcontext():
            yield watched
    finally:
        for handle in handles:
            handle.remove()
        watched.forget()


def leaves(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the names and modules that compute: those without children, and SpikingJelly's neurons, which have one."""

    def inside(name, module):
        children = [] if hasattr(module, "surrogate_function") else list(module.named_children())
        if not children:
            yield name or type(module).__name__, module
        for child, submodule in children:
            yield from inside(f"{name}.{child}" if name else child, submodule)

    return inside("", network)


def kind_of(module: nn.Module) -> str:
    """Return "convolution", "batch norm", "neuron", ...; for unknown ones the name of the class in small letters."""
    if hasattr(module, "surrogate_function"):
        return "neuron"
    return next((kind for known, kind in _KINDS if isinstance(module, known)), type(module).__name__.lower())


def exact(grad: torch.Tensor, logits: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
    """Return the gradient at the logits [B, classes] in float64: computed anew where it is that of the cross-entropy.

    A softmax in float32 has zeros where a probability is below 1e-45, and at the label where the others are below 1e-8;
    in float64 few are left. The gradient of any other loss is taken as it is.
    """
    grad = grad.double()
    if y is None or len(y) != len(logits):
        return grad
    label = torch.nn.functional.one_hot(y.long(), logits.shape[1]).bool()
    others = logits.double().softmax(1).masked_fill(label, 0.0)
    anew = torch.where(label, -others.sum(1, keepdim=True), others)
    own = logits.detach().log_softmax(1).exp().double() - label.double()  # as torch computed it, with its underflow
    factor = (grad * own).sum() / own.square().sum() if own.any() else 1.0  # of a mean, or of a targeted attack
    is_its = (grad - factor * own).abs().max() <= 1e-5 * grad.abs().max()
    return factor * anew if factor and bool(is_its) else grad


def enlarge(grad: torch.Tensor) -> torch.Tensor:
    """Return the gradient [B, classes] with each sample scaled by a power of two: its largest is then 2^63 to 2^64."""
    largest = grad.abs().amax(1, keepdim=True)
    exponent = torch.frexp(largest).exponent
    return torch.where(largest > 0, torch.ldexp(grad, _SCALE - exponent), grad)
