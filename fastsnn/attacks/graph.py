"""A whole step of PGD without Python in between: forward pass, loss, gradient, sign and projection, recorded once.

The recording's tensors are iterate, origin, labels, budgets and step sizes; it replays the step in place, and serves
any eps, alpha and labels. The first two steps of the attack that makes it run as they are: they compile and allocate
what a capture must not, and being steps like any other they move drifting statistics as often as they should. The
capture itself computes nothing. The last step is replayed for its gradient alone, as its rounding differs (see exact).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..ops import attack_step, layout
from ..ops.attack_step import default_batch_axis
from .gradient import InputGradient, check_labels
from .recorders import CpuTape, CudaGraph, Step
from .recordings import Recording, Recordings, recorder_for
from .replayable import kind_of

FEWEST = 3  # steps worth a recording: two run as they are


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
        gradient: at an iterate; with replays.
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
    recorder = recorder_for(gradient, first) if steps else None
    recordings = None if recorder is None else gradient.replays.hold.on(gradient.module)
    if recordings is None:
        return first, 0
    try:
        with gradient.order:  # that of this attack, also around replays
            return _climb(recordings, gradient, (first, origin, y, eps, alpha), steps, recorder, seen_by)
    except torch.OutOfMemoryError:
        recordings.kept.clear()  # whoever tries again with less may need what they hold
        raise


class _Step(Recording):
    """A step on an attack's iterate, origin, labels, budgets and step sizes."""

    def warm_up(self, gradient: InputGradient, recorder: CudaGraph | CpuTape) -> Step:
        """Do two steps, and return the step to record."""
        own, (adv, origin, y, eps, alpha) = gradient.again(), self.statics  # with a flag of its own for replays
        own.order, own.replays = type(gradient.order)(), None  # the attack's own would keep the attack's weights

        def step() -> None:
            self.gradient = own(adv, y)
            adv.copy_(attack_step.step(adv, origin, self.gradient, eps, alpha, self.axis, False, None))

        step()
        recorder.warm_up(step)
        self.finite, self.classes = own.finite, own.classes
        self.rely_on(gradient, own.order)
        return step


def _is_long(steps, recorder):
    return recorder.worth_it is not None and steps >= recorder.worth_it


def _climb(
    recordings: Recordings, gradient: InputGradient, attack: tuple[torch.Tensor, ...], steps: int, recorder, seen_by
) -> tuple[torch.Tensor, int]:
    first, origin, y, eps, alpha = attack
    axis, done = default_batch_axis(first), 0
    samples, kind = first.shape[axis], ("step", gradient.objective, *kind_of(gradient, first, axis))
    recording = recordings.find(gradient, kind, samples, most=2 * samples)
    if recording is not None:
        if gradient.finite is None:  # else they have been looked at
            check_labels(y, recording.classes)
        recording.load(attack)
    elif steps < FEWEST or not recordings.is_due(gradient, (kind, samples), _is_long(steps, recorder)):
        return first, 0
    else:
        recordings.make_room()
        recording, done = _Step(attack), 2
        step = recording.warm_up(gradient, recorder)
        try:
            recording.replay = recorder.capture(step)
        except RuntimeError as error:  # torch raises it for all that a capture refuses, and for memory
            recordings.fail(gradient, kind, error, recorder.fails_for_good)
            gradient.take(recording.finite)
            if seen_by is not None:
                seen_by(recording.statics[0], done)
            return recording.statics[0], done
        recording.bytes = recorder.bytes
        recordings.keep((kind, samples), recording)
    adv, own = recording.statics[0].narrow(axis, 0, samples), torch.empty_like(layout.dense(first))
    stop = seen_by is not None and done > 0 and seen_by(adv, done)
    while done < (steps if seen_by else steps - 1) and not stop:
        recording.replay()
        done += 1
        stop = seen_by is not None and seen_by(adv, done)
    before = own.copy_(adv)
    if seen_by is None:
        recording.replay()
    recording.tell(gradient)
    if seen_by is not None:
        return before, done
    last = recording.gradient.narrow(axis, 0, samples)
    return attack_step.step(before, origin, last, eps, alpha, axis, True, None), steps
