"""Long attacks whose iterates come back: what was computed before is not computed again.

Where kernels are deterministic, a step of PGD is a function of the iterate. So a sample that is where it once was goes
round for ever, and its iterate at any later step is one of the round's. Smooth networks end so (arXiv 2503.19347), and
samples whose gradient is zero; other samples of spiking networks have not been seen to (docs/design.md).

Every iterate is compared with a kept one, bit by bit, and that is renewed when a quarter more steps have passed:
rounds of any length are found, and nothing else is taken for one (Brent 1980, whose kept points are powers of two).
"""

from __future__ import annotations

import torch

from ..nn import in_force
from ..ops import attack_step
from ..ops.attack_step import default_batch_axis
from . import graph
from .gradient import InputGradient
from .independence import are_known

LONG = 50  # steps from which looking for rounds is worth it


def may_be_found(gradient: InputGradient, steps: int) -> bool:
    """Tell whether an attack of so many steps is long enough, and surely does the same at the same iterate.

    Also that nobody watches its passes, for whom all of them are to be made.
    """
    if steps < LONG or gradient.bn == "drift" or gradient.passes > 1 or gradient.rules:
        return False
    if not are_known(gradient.module) or in_force.counting() is not None or torch._C._len_torch_function_stack():
        return False
    on_gpu = any(tensor.is_cuda for tensor in (*gradient.module.parameters(), *gradient.module.buffers()))
    return not on_gpu or torch.are_deterministic_algorithms_enabled()


def climb(
    gradient: InputGradient,
    first: torch.Tensor,
    origin: torch.Tensor,
    y: torch.Tensor,
    eps: torch.Tensor,
    alpha: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """Return the iterate after so many steps (the last as all others), which are made until all samples go round.

    Arguments are those of graph.climb. Samples that know their end leave the batch where they are independent.
    """
    rounds, axis = Rounds(first, steps, gradient.independent), default_batch_axis(first)
    adv, each = first, (y, eps, alpha)
    while rounds.left:
        made = 0
        if gradient.replays is not None:
            adv, made = graph.climb(gradient, adv, origin, *each, steps - rounds.start, rounds)
        while not rounds.may_go:
            look = gradient(adv, each[0])
            adv, made = attack_step.step(adv, origin, look, *each[1:], axis, False, None), made + 1
            rounds(adv, made)
        on = rounds.go_on_without(made)
        adv, origin, *each = (part.index_select(axis if part.dim() > 1 else 0, on) for part in (adv, origin, *each))
    return rounds.wanted


class Rounds:
    """Samples on their way, and which of them go round; to be called with every iterate, or nearly every, and the last.

    Args:
        first: iterate [T, B, C, H, W] or [B, C, H, W].
        steps: after which an iterate is wanted, at least 1.
        apart: whether each sample goes its own way; else only the whole batch comes back.

    Attributes:
        wanted: that iterate, of all samples whose end is known.
        left: which samples of the batch are on their way, and looked at.
        start: the step after which these were left.
        may_go: whether enough of them have arrived to go on without these.
    """

    def __init__(self, first: torch.Tensor, steps: int, apart: bool):
        self.steps, self.apart, self.axis = steps, apart, default_batch_axis(first)
        self.wanted, self.kept, self.kept_at, self.start = first.clone(), first.clone(), 0, 0
        self.left, self.may_go = list(range(first.shape[self.axis])), False
        self._ends = [steps] * len(self.left)  # the step whose iterate is the wanted one
        self._seen = 0  # the last step that was looked at

    def __call__(self, adv: torch.Tensor, made: int) -> bool:
        """Look at the iterate of those that are left, so many steps after `start`; return may_go."""
        step = self.start + made
        # whose end was passed over, as a recording's first two steps are seen as one, goes round once more
        self._ends = [self.steps if self._seen < end < step else end for end in self._ends]
        self._seen = step
        for i in self._back(adv):
            self._ends[i] = min(self._ends[i], step + (self.steps - step) % (step - self.kept_at))
        arrived = [i for i, end in enumerate(self._ends) if end == step]
        for i in arrived:
            self.wanted.select(self.axis, self.left[i]).copy_(adv.select(self.axis, i))
        if step - self.kept_at >= 4 + self.kept_at // 4:
            self.kept, self.kept_at = adv.clone(), step
        there = sum(end <= step for end in self._ends)
        self.may_go = there == len(self._ends) or (self.apart and 2 * there > len(self._ends))
        return self.may_go

    def go_on_without(self, made: int) -> torch.Tensor:
        """Leave those that have arrived, and return which go on: numbers among those that were left."""
        self.start += made
        on = [i for i, end in enumerate(self._ends) if end > self.start]
        self.left, self._ends, self.may_go = [self.left[i] for i in on], [self._ends[i] for i in on], False
        chosen = torch.tensor(on, dtype=torch.int64, device=self.kept.device)
        self.kept = self.kept.index_select(self.axis, chosen)
        return chosen

    def _back(self, adv: torch.Tensor) -> list[int]:
        """Return who is where the kept iterate is."""
        if not _equal(self._part(adv), self._part(self.kept), 0).any():
            return []
        same = _equal(adv, self.kept, self.axis)
        return (same if self.apart else same.all().expand_as(same)).nonzero().flatten().tolist()

    def _part(self, x: torch.Tensor) -> torch.Tensor:
        """Return the first frame's first channel, which tells iterates apart that are not the same."""
        frame = x[0] if self.axis else x
        return frame[:, 0] if frame.dim() > 2 else frame


def _equal(these: torch.Tensor, those: torch.Tensor, axis: int) -> torch.Tensor:
    equal = these.view(torch.int32) == those.view(torch.int32)  # the bits: 0 and -0 may lead to different ones
    return equal.movedim(axis, 0).flatten(1).all(1)
