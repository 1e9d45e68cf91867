"""The recordings of a network: of its attacks' steps (graph.py) and looks (looks.py), to be replayed without Python.

A recording owns tensors that stay where they are. An attack is copied into them, so that one recording serves a whole
sweep. It is made when its kind is met for the second time on the same weights (the first batch of a sweep loses little,
and adversarial training, whose weights always change, records nothing), or at once where one attack has many passes, or
gradients are counted.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Hashable

import torch
from torch import nn

from ..engine.layer import PreparedLayer
from ..engine.unchanged import are_unchanged, known
from ..nn import in_force
from ..ops import layout
from ..ops.attack_step import default_batch_axis
from .gradient import InputGradient
from .recorders import CpuTape, CudaGraph, recorder_on
from .replayable import Traits, is_replayable, layers_of, rearranges

KEPT = 4  # recordings of a network (sizes of batches, bn modes, precisions): each holds the memory of a pass
MOST_BYTES = 2**30  # that they keep together, as far as it is known; one may be larger
log = logging.getLogger("fastsnn")


class Recording:
    """What is recorded on tensors of its own, of the sizes of an attack's.

    Args:
        tensors: of the attack: with samples along their batch axis, or [B].

    Attributes:
        statics: the recording's own.
        axis: of the batch in the first.
        bytes: that it keeps, as far as they are known.
        finite: whether all logits and gradients were, a tensor; None before the first pass.
    """

    def __init__(self, tensors: tuple[torch.Tensor, ...]):
        self.axis = default_batch_axis(tensors[0])
        self.statics = tuple(torch.empty_like(layout.dense(one) if one.dim() > 1 else one) for one in tensors)
        self.finite, self.bytes = None, 0
        self.layers, self.order, self.linears, self.counting = {}, None, [], None
        self.load(tensors)

    def load(self, tensors: tuple[torch.Tensor, ...]) -> None:
        """Copy an attack of as many samples or fewer; its first fills the rest, so that nothing new can turn up."""
        for static, tensor in zip(self.statics, tensors, strict=True):
            axis = self.axis if tensor.dim() > 1 else 0
            samples, size = tensor.shape[axis], static.shape[axis]
            static.narrow(axis, 0, samples).copy_(tensor)
            static.narrow(axis, samples, size - samples).copy_(tensor.narrow(axis, 0, 1))
        if self.finite is not None:
            self.finite.fill_(True)

    def rely_on(self, gradient: InputGradient, order: object) -> None:
        """Note what the passes read that were just made, so that it stays alive: with it they stay valid."""
        self.layers, self.order = layers_of(gradient), order
        counting = in_force.counting()
        self.counting = None if counting is None else weakref.ref(counting)
        self.linears = [(weight, known(weight)) for weight, *_ in getattr(order, "linears", {}).values()]

    def is_valid(self, layers: dict[Hashable, PreparedLayer]) -> bool:
        """Tell whether the rearranged weights that it reads are those of now, and whoever counted is still there."""
        if self.counting is not None and self.counting() is None:
            return False
        if any(layers.get(name) is not layer for name, layer in self.layers.items()):
            return False
        now, then = zip(*self.linears, strict=True) if self.linears else ((), ())
        return are_unchanged([(now, then)])[0]

    def tell(self, gradient: InputGradient) -> None:
        """Tell an attack's gradient what replays did behind its back, and torch which buffers they changed."""
        gradient.take(self.finite)
        if gradient.bn == "drift":
            torch.autograd.graph.increment_version([*gradient.module.buffers()])


class Recordings:
    """The recordings of one network by kind and number of samples, the least recently used first."""

    def __init__(self):
        self.in_use = threading.Lock()
        self.kept: dict[tuple, Recording] = {}
        self.met: set[tuple] = set()
        self.failed: set[tuple | None] = set()  # kinds, or None: all
        self.traits: Traits | None = None

    def find(self, gradient: InputGradient, kind: tuple, samples: int, most: int) -> Recording | None:
        """Return a valid recording of so many samples, or of more, up to `most`, where samples are independent."""
        layers = layers_of(gradient)
        if self.traits is None or not self.traits.are_of(gradient.module):
            self.kept.clear()
            self.met.clear()
            self.traits = Traits(gradient.module)
        for key in [key for key, one in self.kept.items() if key[0] == kind or one.counting is not None]:
            if not self.kept[key].is_valid(layers):
                del self.kept[key]
                self.met.discard(key)
        most = most if gradient.independent else samples
        key = min((key for key in self.kept if key[0] == kind and samples <= key[1] <= most), default=None)
        if key is not None:
            self.kept[key] = self.kept.pop(key)
        return self.kept.get(key)

    def is_due(self, gradient: InputGradient, key: tuple, at_once: bool) -> bool:
        """Tell whether a recording should be of use: its kind was met before, and weights have not changed since.

        Adversarial training changes them between attacks, and a capture empties torch's cache of memory. `at_once`:
        this attack alone is long enough. Whoever counts gradients does so over many passes, on the same weights.
        """
        counting = in_force.counting()
        if self.failed & {key[0], None}:
            return False
        if at_once or counting is not None or (key in self.met and (layers_of(gradient) or not rearranges(gradient))):
            return True
        self.met.add(key)
        return False

    def make_room(self) -> None:
        """Let go of the least recently used, before another is made, which needs memory."""
        while len(self.kept) >= KEPT:
            del self.kept[next(iter(self.kept))]

    def keep(self, key: tuple, recording: Recording) -> None:
        """Keep a recording whose memory is known, and of the others as many as there may be."""
        self.kept.pop(key, None)
        while self.kept and recording.bytes + sum(one.bytes for one in self.kept.values()) > MOST_BYTES:
            del self.kept[next(iter(self.kept))]
        self.kept[key] = recording

    def fail(self, gradient: InputGradient, kind: tuple, error: RuntimeError, for_good: bool) -> None:
        """Record no more of a kind, or nothing at all; say so once."""
        if not self.failed:
            log.warning("fastsnn attacks %s without recorded steps: %s", type(gradient.module).__name__, _reason(error))
        self.failed.add(None if for_good else kind)


class Hold:
    """An attack's hold on its network's recordings, as long as it lasts: no other thread writes to their memory."""

    def __init__(self):
        self._held: Recordings | None = None

    def on(self, network: nn.Module) -> Recordings | None:
        """Return the recordings of the attack's network, or None while another attack has them."""
        if self._held is None:
            recordings = of_networks.setdefault(network, Recordings())
            self._held = recordings if recordings.in_use.acquire(blocking=False) else None
        return self._held

    def release(self) -> None:
        """Let others have them."""
        if self._held is not None:
            self._held.in_use.release()
        self._held = None


of_networks: weakref.WeakKeyDictionary[nn.Module, Recordings] = weakref.WeakKeyDictionary()


def recorder_for(gradient: InputGradient, first: torch.Tensor) -> CudaGraph | CpuTape | None:
    """Return what records passes of a batch like this, or None where nothing does, or where it is not worth it."""
    recorder = recorder_on(first.device)
    if recorder is None or not is_replayable(gradient, first, recorder.most_samples):
        return None
    if recorder.only_rearranged and not rearranges(gradient):
        return None
    return None if in_force.counting() is not None and not recorder.may_count else recorder


def _reason(error: RuntimeError) -> str:
    """Return in a line what went wrong; the end of a failing capture raises once more, and says less."""
    cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]
