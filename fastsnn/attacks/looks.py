"""A look at the network without Python in between: forward pass, and backward pass from a gradient at the logits.

The loss in between is Python's at every look, so that one recording serves all attacks and objectives. The first look
on its tensors runs as it is, the second is recorded, all others are replayed; they may be those of the next attacks.
On a CPU alone: a CUDA graph cannot call Python on its way.
"""

from __future__ import annotations

import torch

from ..ops import layout, tape
from ..ops.attack_step import default_batch_axis
from .gradient import InputGradient, Look, at_the_logits, check_labels
from .recorders import CpuTape
from .recordings import Hold, Recording, Recordings, recorder_for
from .replayable import kind_of


class Replays:
    """What an attack has recorded or replayed, as long as it lasts.

    Attributes:
        hold: on the recordings of its network.
    """

    def __init__(self):
        self.hold = Hold()
        self._known: dict[tuple, _Look | None] = {}  # by the size and layout of a batch: else an attack stays the same
        self._looks: dict[tuple, int] = {}  # that were not replayed

    def look(self, gradient: InputGradient, x: torch.Tensor, y: torch.Tensor) -> Look | None:
        """Return what gradient.look returns, where such a look is recorded or met for the second time; else None."""
        batch = (x.shape, x.stride(), x.dtype)
        before = self._looks.get(batch, 0)
        if before in (0, CpuTape.worth_it) and self._known.get(batch) is None:
            self._known[batch] = self._find(gradient, x, y, at_once=before > 0)
        recording = self._known[batch]
        if recording is None:
            self._looks[batch] = before + 1
            return None
        try:
            return recording.look(self.hold.on(gradient.module), gradient, x, y)
        except torch.OutOfMemoryError:
            self._known.clear()
            self.hold.on(gradient.module).kept.clear()  # whoever tries again with less may need what they hold
            raise

    def _find(self, gradient, x, y, at_once):
        recorder = recorder_for(gradient, x)
        if not isinstance(recorder, CpuTape):
            return None
        recordings = self.hold.on(gradient.module)
        if recordings is None:
            return None
        axis = default_batch_axis(x)
        samples, kind = x.shape[axis], ("look", *kind_of(gradient, x, axis))
        recording = recordings.find(gradient, kind, samples, most=samples + samples // 8)  # more would not be faster
        if recording is None and recordings.is_due(gradient, (kind, samples), at_once):
            recordings.make_room()
            recording = _Look((x, y), (kind, samples))
        return recording


class _Look(Recording):
    """A look at an attack's iterate and labels.

    Attributes:
        key: among the recordings of its network.
        replay: does it again; None before it is recorded.
        failed: whether it cannot be recorded.
    """

    def __init__(self, tensors: tuple[torch.Tensor, ...], key: tuple):
        super().__init__(tensors)
        self.key, self.replay, self.failed = key, None, False
        self.loss = _Loss(self.statics[1])

    def look(self, recordings: Recordings, gradient: InputGradient, x: torch.Tensor, y: torch.Tensor) -> Look | None:
        """Look at a batch; None once recording has failed."""
        if self.failed:
            return None
        self.load((x, y))
        self.loss.objective, self.loss.samples = gradient.objective, len(y)
        if gradient.finite is None and self.finite is not None:
            check_labels(y, self.classes)
        if self.replay is not None:
            self.replay()
        else:
            self._look_as_it_is(recordings, gradient)
        self.tell(gradient)
        gradient.classes = self.classes
        g, logits = self.gradient.narrow(self.axis, 0, len(y)), self.loss.logits.narrow(0, 0, len(y))
        return layout.like(g, x), self.loss.of_samples, logits.float().clone()

    def _look_as_it_is(self, recordings: Recordings, gradient: InputGradient) -> None:
        """Look for the first time, or for the second, which is recorded."""
        own, first = gradient.again(), self.finite is None
        own.replays, own.finite = None, self.finite
        own.order = self.order or type(gradient.order)()  # the attack's own would keep the attack's weights
        recorder = CpuTape()
        with own.order:
            self._pass(own) if first else recorder.warm_up(lambda: self._pass(own))
        if first:
            self.finite, self.classes = own.finite, own.classes
            self.rely_on(gradient, own.order)
            recordings.keep(self.key, self)
            return
        try:
            self.replay = recorder.capture(lambda: self._pass(own))
        except RuntimeError as error:
            recordings.fail(gradient, self.key[0], error, recorder.fails_for_good)
            recordings.kept.pop(self.key, None)
            self.failed = True
            return
        self.bytes = recorder.bytes
        recordings.keep(self.key, self)

    def _pass(self, own: InputGradient) -> None:
        x, logits = own.forward(*self.statics)
        self.loss.logits = logits.detach()
        tape.call(self.loss)
        self.gradient = own.backward(x, logits, self.loss.at_logits)


class _Loss:
    """The loss between the passes, of the samples that are there; holds nothing of its recording, which holds it.

    Attributes:
        y: labels [B].
        logits: [B, classes].
        at_logits: the gradient there; zero of other samples.
        of_samples: the loss of those that are there.
    """

    def __init__(self, y: torch.Tensor):
        self.y, self.at_logits = y, None

    def __call__(self) -> None:
        """Compute the loss and its gradient."""
        with torch.enable_grad():
            there = (one.narrow(0, 0, self.samples) for one in (self.logits, self.y))
            self.of_samples, at_logits = at_the_logits(self.objective, *there)
        if self.at_logits is None:
            self.at_logits = torch.zeros_like(self.logits)
        self.at_logits.zero_().narrow(0, 0, self.samples).copy_(at_logits)
