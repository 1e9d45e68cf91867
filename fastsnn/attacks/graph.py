"""A whole step of PGD without Python in between: forward pass, loss, gradient, sign and projection, recorded once.

A recording (see recorders) owns tensors that stay where they are: iterate, origin, labels, budgets, step sizes. An
attack is copied into them and replays the step in place, so that one recording serves a whole sweep over eps, alpha and
labels. The first two steps of the attack that makes it run as they are: they compile and allocate what a capture must
not, and being steps like any other they move drifting statistics as often as they should. Capturing itself computes
nothing. The last step is replayed for its gradient alone, as its rounding differs (see attack_step, exact).
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Hashable

import torch
from torch import nn

from ..engine.layer import PreparedLayer
from ..engine.unchanged import are_unchanged, known
from ..nn import in_force
from ..ops import attack_step, layout
from ..ops.attack_step import default_batch_axis
from .gradient import InputGradient, check_labels
from .recorders import CpuTape, CudaGraph, Step, recorder_on
from .replayable import is_replayable, kind_of, layers_of, rearranges, traits_of

KEPT = 4  # recordings of a network (sizes of batches, bn modes, precisions): each holds the memory of a step
MOST_BYTES = 2**30  # that they keep together, as far as it is known; one may be larger
FEWEST = 3  # steps worth a recording: two run as they are
log = logging.getLogger("fastsnn")


def climb(
    gradient: InputGradient,
    first: torch.Tensor,
    origin: torch.Tensor,
    y: torch.Tensor,
    eps: torch.Tensor,
    alpha: torch.Tensor,
    steps: int,
    seen_by: Callable[[torch.Tensor, int], bool] | None = None,
) -> tuple[torch.Tensor, int]:
    """Replay the steps of an attack where such a step is recorded, or is met for the second time.

    Args:
        gradient: at an iterate.
        first: iterate [T, B, C, H, W] or [B, C, H, W].
        origin: centre of the ball, like first.
        y: labels [B], int64.
        eps: budgets [B].
        alpha: step sizes [B].
        steps: iterations, at least 0.
        seen_by: called with iterates (memory of the recording's) and how many steps led to them, tells whether to stop.
            With it no step is the last one, whose rounding differs.

    Returns:
        An iterate, and how many steps led to it: all, or as many as were wanted; none, and first itself; or two, where
        recording failed, which is logged once for a network.
    """
    recorder = recorder_on(first.device)
    if recorder is None or not steps or not is_replayable(gradient, first, recorder.most_samples):
        return first, 0
    if recorder.only_rearranged and not rearranges(gradient):
        return first, 0
    if in_force.counting() is not None and not recorder.may_count:
        return first, 0
    recordings = _of_networks.setdefault(gradient.module, _Recordings())
    if not recordings.in_use.acquire(blocking=False):  # another thread attacks the same network, in their memory
        return first, 0
    try:
        with gradient.order:  # that of this attack, also around replays
            return recordings.climb(gradient, (first, origin, y, eps, alpha), steps, recorder, seen_by)
    except torch.OutOfMemoryError:
        recordings.kept.clear()  # whoever tries again with less may need what they hold
        raise
    finally:
        recordings.in_use.release()


class _Recording:
    """A step on tensors of its own, of the sizes of an attack's (iterate, origin, labels, budgets, step sizes)."""

    def __init__(self, attack: tuple[torch.Tensor, ...]):
        self.axis, dense = default_batch_axis(attack[0]), layout.dense(attack[0])
        self.statics = (torch.empty_like(dense), torch.empty_like(dense), *map(torch.empty_like, attack[2:]))
        self.gradient = self.finite = self.replay = None
        self.load(attack)

    def load(self, attack: tuple[torch.Tensor, ...]) -> None:
        """Copy an attack of as many samples or fewer; its first fills the rest, so that nothing new can turn up."""
        for static, tensor in zip(self.statics, attack, strict=True):
            axis = self.axis if tensor.dim() > 1 else 0
            samples, size = tensor.shape[axis], static.shape[axis]
            static.narrow(axis, 0, samples).copy_(tensor)
            static.narrow(axis, samples, size - samples).copy_(tensor.narrow(axis, 0, 1))
        if self.finite is not None:
            self.finite.fill_(True)

    def warm_up(self, gradient: InputGradient, recorder: CudaGraph | CpuTape) -> Step:
        """Do two steps, and return the step to record."""
        own, (adv, origin, y, eps, alpha) = gradient.again(), self.statics  # with a flag of its own for replays
        self.order = own.order = type(gradient.order)()  # the attack's own would keep the attack's weights

        def step() -> None:
            self.gradient = own(adv, y)
            adv.copy_(attack_step.step(adv, origin, self.gradient, eps, alpha, self.axis, False, None))

        step()
        recorder.warm_up(step)
        self.finite, self.classes = own.finite, own.classes
        self.layers = layers_of(gradient)  # their rearranged weights are read: they stay alive
        counting = in_force.counting()
        self.counting = None if counting is None else weakref.ref(counting)
        self.linears = [(weight, known(weight)) for weight, *_ in getattr(self.order, "linears", {}).values()]
        return step

    def is_of(self, layers: dict[Hashable, PreparedLayer]) -> bool:
        """Tell whether the rearranged weights that it reads are those of now, and whoever counted is still there."""
        if self.counting is not None and self.counting() is None:
            return False
        if any(layers.get(name) is not layer for name, layer in self.layers.items()):
            return False
        now, then = zip(*self.linears, strict=True) if self.linears else ((), ())
        return are_unchanged([(now, then)])[0]


class _Recordings:
    """The recordings of one network by kind and number of samples, the least recently used first."""

    def __init__(self):
        self.in_use = threading.Lock()
        self.kept: dict[tuple, _Recording] = {}
        self.met: dict[tuple, weakref.ref | None] = {}  # who counted then, if anybody
        self.failed: set[tuple | None] = set()  # kinds, or None: all
        self.traits = None

    def climb(self, gradient, attack, steps, recorder, seen_by) -> tuple[torch.Tensor, int]:
        """See the function `climb`."""
        first, origin, _, eps, alpha = attack
        axis, done = default_batch_axis(first), 0
        key = kind_of(gradient, first, axis), first.shape[axis]
        recording = self._find(gradient, *key)
        if recording is not None:
            if gradient.finite is None:  # else they have been looked at
                check_labels(attack[2], recording.classes)
            recording.load(attack)
        elif self.failed & {key[0], None} or steps < FEWEST or not self._is_met(gradient, key):
            return first, 0
        else:
            while len(self.kept) >= KEPT:  # first: recording needs memory
                del self.kept[next(iter(self.kept))]
            recording, done = _Recording(attack), 2
            step = recording.warm_up(gradient, recorder)
            try:
                recording.replay = recorder.capture(step)
            except RuntimeError as error:  # torch raises it for all that a capture refuses, and for memory
                if not self.failed:
                    name = type(gradient.module).__name__
                    log.warning("fastsnn attacks %s without recorded steps: %s", name, _reason(error))
                self.failed.add(None if recorder.fails_for_good else key[0])
                gradient.take(recording.finite)
                return recording.statics[0], done
            recording.bytes = recorder.bytes
            while self.kept and recording.bytes + sum(one.bytes for one in self.kept.values()) > MOST_BYTES:
                del self.kept[next(iter(self.kept))]
            self.kept[key] = recording
        adv, own = recording.statics[0].narrow(axis, 0, key[1]), torch.empty_like(layout.dense(first))
        stop = seen_by is not None and done > 0 and seen_by(adv, done)
        while done < (steps if seen_by else steps - 1) and not stop:
            recording.replay()
            done += 1
            stop = seen_by is not None and seen_by(adv, done)
        before = own.copy_(adv)
        if seen_by is None:
            recording.replay()
        gradient.take(recording.finite)
        if gradient.bn == "drift":  # replays move statistics behind the back of torch's count of changes
            torch.autograd.graph.increment_version([*gradient.module.buffers()])
        if seen_by is not None:
            return before, done
        last = recording.gradient.narrow(axis, 0, key[1])
        return attack_step.step(before, origin, last, eps, alpha, axis, True, None), steps

    def _find(self, gradient, kind, samples) -> _Recording | None:
        """Return a valid recording; one up to twice as large serves where samples are independent."""
        traits, layers = traits_of(gradient.module), layers_of(gradient)
        if traits != self.traits:
            self.kept.clear()
            self.met.clear()
            self.traits = traits
        for key in [key for key, one in self.kept.items() if key[0] == kind or one.counting is not None]:
            if not self.kept[key].is_of(layers):
                del self.kept[key]
                self.met.pop(key, None)
        self.met = {key: counting for key, counting in self.met.items() if counting is None or counting() is not None}
        most = 2 * samples if gradient.independent else samples
        key = min((key for key in self.kept if key[0] == kind and samples <= key[1] <= most), default=None)
        if key is not None:
            self.kept[key] = self.kept.pop(key)
        return self.kept.get(key)

    def _is_met(self, gradient, key) -> bool:
        """Tell whether a recording should be of use again: its kind was met before, and weights have not changed since.

        Adversarial training changes them between attacks, and a capture empties torch's cache of memory.
        """
        if key in self.met and (layers_of(gradient) or not rearranges(gradient)):
            return True
        counting = in_force.counting()
        self.met[key] = None if counting is None else weakref.ref(counting)
        return False


_of_networks: weakref.WeakKeyDictionary[nn.Module, _Recordings] = weakref.WeakKeyDictionary()


def _reason(error: RuntimeError) -> str:
    """Return in a line what went wrong; the end of a failing capture raises once more, and says less."""
    cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]
