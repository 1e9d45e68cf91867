"""Turns a network into the fastest form with the same answers, layer by layer.

`prepare(network, x)` gives a callable like the network. It looks at every spiking layer and shape, chooses a form
(forms.py) and rearranges the weights; where they are frozen, once, and keeps that for later calls.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import nn

from ..nn import IFNode, LIFNode, in_force, norm_fire
from ..nn import precision as in_precision
from ..nn.norms import uses_batch_statistics
from ..nn.precision import forward_dtype, gradient_dtype, product_dtype
from ..ops import check
from .forms import Dtypes, Form, fitting
from .layer import PreparedLayer
from .unchanged import are_unchanged, known
from .under_attack import under_attack


class Layer(NamedTuple):
    """What was chosen for a layer: a row of `explain()`.

    Attributes:
        name: the layer's name in the network, or its class where the network is a bare callable.
        shape: of its input frames, [C, H, W]; frames of all steps and samples go together.
        dtype: of its products; of those of the forward pass and of the gradient, where they differ.
        form: how it is computed.
        why: what decided that.
        milliseconds: of the form, forward and input gradient, on as many frames as at the first call; best of five.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    form: str
    why: str
    milliseconds: float


class _Chosen(NamedTuple):
    watched: tuple  # weak references to the tensors it was made from, and their versions
    known: tuple  # what tells whether those tensors have changed
    settings: tuple  # the numbers it was made from
    frames: tuple[int, ...]
    why: str
    form: Form
    layers: dict[object, PreparedLayer]  # by the constants of the neurons: attackers may choose another surrogate


def prepare(
    network: Callable[[torch.Tensor], torch.Tensor],
    example: torch.Tensor | None = None,
    *,
    bn: str = "frozen",
    precision: str = "fp32",
    deterministic: bool = True,
) -> Prepared:
    """Return `network` in the fastest form with the same answers, for attacks and for training.

    The answers are those of precision "fp32" or "fast" (whichever is in force when it is called), up to the order in
    which sums are added; under "reference" the network runs as it is. A layer whose weights need gradients is prepared
    anew at every call, in train mode, in float32 and on a CPU; elsewhere it runs as it is.

    Args:
        network: a module of this package, or a callable around one; prepared already, it is returned as it is.
        example: an input to choose all forms for now; without it they are chosen at the first call.
        bn: the mode of the norms that the example is run in; see under_attack.
        precision: the precision that the example is run in; see nn.precision.
        deterministic: choose by the fixed rule of forms.fitting, so that every run and machine takes the same forms and
            gives the same bits; False takes the fastest of the fitting forms by a quick measurement.

    Raises:
        ValueError, TypeError: bn, precision or example is wrong; the message names it.
    """
    prepared = network if isinstance(network, Prepared) else Prepared(network, deterministic)
    if example is not None:
        check.tensor("example", example)
        bn = "batch" if bn == "drift" else bn  # an example moves no statistics
        with torch.inference_mode(False), under_attack(prepared.network, bn), in_precision(precision):
            leaf = example.detach().clone().requires_grad_()
            out = prepared(leaf)
            if out.requires_grad:
                torch.autograd.grad(out.sum(), leaf)  # not backward(), which would add to gradients of others
    return prepared


_remembered: weakref.WeakKeyDictionary[nn.Module, dict] = weakref.WeakKeyDictionary()


def remembered(network: Callable[[torch.Tensor], torch.Tensor]) -> Prepared:
    """Return `network` prepared, with the forms of earlier calls where the weights are still the same.

    To compare weights is one pass over them; building forms also rearranges and transforms them.
    """
    if isinstance(network, Prepared):
        return network.forget_changed()
    prepared = Prepared(network)
    if isinstance(network, nn.Module):
        prepared._chosen = _remembered.setdefault(network, prepared._chosen)
    return prepared.forget_changed()


class Prepared:
    """A network in its fastest form; call it as the network. Made by `prepare`.

    Rearranged weights are kept from call to call. Weights that are replaced or changed through torch's counted
    operations are noticed; after a change behind torch's back (`.data`, fused optimizers) call `forget_changed`, as
    attacks do.
    """

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor], deterministic: bool = True):
        self.network, self.deterministic = network, deterministic
        self._chosen: dict[tuple, _Chosen] = {}

    def forget_changed(self) -> Prepared:
        """Drop the rearranged weights of layers that have other weights now, however they changed; return self."""
        watched = [([reference() for reference, _ in chosen.watched], chosen.known) for chosen in self._chosen.values()]
        for key, unchanged in zip(list(self._chosen), are_unchanged(watched), strict=True):
            if not unchanged:
                del self._chosen[key]
        return self

    def layers(self) -> dict[Hashable, PreparedLayer]:
        """Return the layers that have been prepared; one that is made anew (other weights) is another object."""
        return {(key, neuron): layer for key, chosen in self._chosen.items() for neuron, layer in chosen.layers.items()}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the network returns for x."""
        with in_force.computed_by(self._compute):
            return self.network(x)

    def explain(self) -> Explanation:
        """Return, for the calls so far, the form of every layer, why, and its time; printed, it is a table."""
        modules = self.network.named_modules() if isinstance(self.network, nn.Module) else ()
        rows, names = [], {id(module): name for name, module in modules}
        for (conv, _, dtypes, device, *_), chosen in self._chosen.items():
            _, H, W, C = chosen.frames
            name = names.get(conv, type(next(iter(chosen.layers.values())).conv).__name__)
            milliseconds = _measure(chosen.form, chosen.frames, dtypes.frames, device) * 1e3
            used = chosen.form.products or dtypes.frames, dtypes.gradient
            short = "/".join(str(dtype).removeprefix("torch.") for dtype in dict.fromkeys(used))
            rows.append(Layer(name, (C, H, W), short, chosen.form.name, chosen.why, milliseconds))
        return Explanation(rows)

    def _compute(self, conv, norm, neuron, x_seq, residual, junction, spikes, take_counts=None):
        """Compute a spiking layer, or return None where no form fits; see nn.spiking_layer."""
        foreign = neuron is not None and type(neuron) not in (IFNode, LIFNode)  # which fires by itself
        with torch._C.DisableTorchFunction():  # who overrides torch's functions (attacks do) has no business in here
            if foreign:
                current = self._computed(conv, None, None, x_seq, None, None, spikes, None)
            else:
                return self._computed(conv, norm, neuron, x_seq, residual, junction, spikes, take_counts)
        return None if current is None else norm_fire(norm, neuron, current, residual, junction)

    def _computed(self, conv, norm, neuron, x_seq, residual, junction, spikes, take_counts):
        linear = type(conv) is nn.Linear
        if not (linear or type(conv) is nn.Conv2d) or not x_seq.numel():
            return None  # a subclass may compute something else
        weight = conv.weight
        if weight.dtype != torch.float32 or weight.device != x_seq.device:
            return None
        if x_seq.dim() != (3 if linear else 5) or x_seq.shape[2] != weight.shape[1] * (1 if linear else conv.groups):
            return None  # the layer says what is wrong; a form would read beyond its input
        if norm is not None and (linear or type(norm) is not nn.BatchNorm2d):
            return None
        if torch._C._are_functorch_transforms_active():
            return None
        drifting = norm is not None and uses_batch_statistics(norm)
        tensors = _tensors_of(conv, norm, drifting)
        trained = torch.is_grad_enabled() and any([tensor.requires_grad for tensor in tensors])
        frames, gradient = product_dtype(spikes, x_seq.device), gradient_dtype(spikes, x_seq.device)
        # with the batch's statistics one spike that differs would move every sample
        dtypes = Dtypes(frames, frames if drifting else forward_dtype(spikes, x_seq.device), gradient)
        key = (id(conv), x_seq.shape[2:], dtypes, x_seq.device, drifting, neuron is None)
        how = () if linear else (conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
        settings, constants = (*how, None if norm is None else norm.eps), None if neuron is None else neuron.neuron
        chosen = self._chosen.get(key)
        # trained weights have changed since the last call, noticed by torch or not (fused optimizers are not)
        if trained or chosen is None or chosen.settings != settings or not _unchanged(chosen.watched, tensors):
            if trained and not (_learns(conv, norm) and set(dtypes) == {torch.float32} and x_seq.is_cpu):
                return None
            if any(tensor.is_inference() for tensor in tensors):
                return None  # torch does not count their changes
            T, B, C, H, W = (*x_seq.shape, 1, 1)[:5]
            with torch.no_grad():
                form, why = self._choose(conv, (T * B, H, W, C), dtypes, measure=not (self.deterministic or trained))
                if form is None:
                    return None
            watched = tuple((weakref.ref(tensor), tensor._version) for tensor in tensors)
            now = () if trained else tuple(map(known, tensors))
            chosen = self._chosen[key] = _Chosen(watched, now, settings, (T * B, H, W, C), why, form, {})
        if constants not in chosen.layers:
            with torch.no_grad():
                chosen.layers[constants] = PreparedLayer(chosen.form, conv, norm, neuron, frames)
        return chosen.layers[constants](x_seq, residual, junction, take_counts)

    def _choose(self, conv, shape, dtypes, measure: bool) -> tuple[Form | None, str]:
        """Return the form for a layer and why, by the rule or by measurement; None where none fits."""
        fits = fitting(conv, shape, dtypes.frames)
        if not fits:
            return None, ""
        if not measure or len(fits) == 1:
            form, why = fits[0]
            return form(conv, dtypes, shape), why
        forms = [form(conv, dtypes, shape) for form, _ in fits]
        seconds = [_measure(form, shape, dtypes.frames, conv.weight.device) for form in forms]
        best = seconds.index(min(seconds))
        others = [
            f"{form.name} {1e3 * s:.2f}" for form, s in zip(forms, seconds, strict=True) if form is not forms[best]
        ]
        return forms[best], f"fastest; {', '.join(others)} ms"


class Explanation(list):
    """Rows of `explain`, a list of Layer; as text a table."""

    def __str__(self) -> str:
        """Return a table with a line for each layer and a total."""
        head = ("layer", "input", "type", "form", "ms", "why")
        cells = [
            (row.name, "x".join(map(str, row.shape)), row.dtype, row.form, f"{row.milliseconds:.2f}", row.why)
            for row in self
        ]
        cells.append(
            ("total", "", "", "", f"{sum(row.milliseconds for row in self):.2f}", "forward and input gradient")
        )
        widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in (head, *cells)]
        return "\n".join(lines)


def _learns(conv: nn.Module, norm: nn.BatchNorm2d | None) -> bool:
    """Tell whether a layer in training is prepared: in train mode; a linear layer's panels cost more than they save."""
    if norm is not None:
        return uses_batch_statistics(norm)
    return conv.training and type(conv) is nn.Conv2d


def _tensors_of(conv: nn.Module, norm: nn.BatchNorm2d | None, drifting: bool) -> list[torch.Tensor]:
    """Return what a layer is made from, each a tensor."""
    named = [(conv, conv._parameters, "weight"), (conv, conv._parameters, "bias")]
    if norm is not None:
        named += (norm, norm._parameters, "weight"), (norm, norm._parameters, "bias")
        running = ((norm, norm._buffers, "running_mean"), (norm, norm._buffers, "running_var"))
        named += () if drifting else running
    found = []
    for module, held, name in named:
        tensor = held[name] if name in held else getattr(module, name)  # which takes half a microsecond
        if tensor is not None:
            found.append(tensor)
    return found


def _unchanged(watched, tensors) -> bool:
    if len(watched) != len(tensors):
        return False
    for (reference, version), tensor in zip(watched, tensors, strict=True):
        if reference() is not tensor or version != tensor._version:
            return False
    return True


def _measure(form: Form, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> float:
    """Return the seconds of a form's forward pass and input gradient, the best of five."""
    generator = torch.Generator(device).manual_seed(0)  # of its own: torch's numbers are the caller's
    frames, best = torch.rand(shape, device=device, generator=generator).round_().to(dtype), float("inf")
    with torch.no_grad():
        for _ in range(5):
            _wait(device)
            start = time.perf_counter()
            form.backward(form.forward(frames))
            _wait(device)
            best = min(best, time.perf_counter() - start)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
