"""What records a step of an attack, to be replayed without Python: a CUDA graph on a GPU, a tape on a CPU.

`warm_up(step)` runs a step, `capture(step)` returns its replay, which runs none. Attributes:

    most_samples: of a batch whose steps are worth recording.
    only_rearranged: whether steps are only worth it whose layers the engine computes.
    may_count: whether it records what counts gradients meanwhile, see nn.in_force.
    worth_it: passes of one attack that are worth a recording of their own; None where that is not known.
    fails_for_good: whether one step that cannot be recorded is the last that is tried on a network.
    bytes: that the last capture keeps, where they are known, else 0.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import torch

from ..ops import tape

Step = Callable[[], None]
_one_at_a_time = threading.Lock()  # all recordings of a device share a stream


class CudaGraph:
    """Records steps on a CUDA device; they work in place and look at no value on the host."""

    most_samples = 512  # beyond, a GPU computes longer than the host takes to launch (a guess, not measured)
    only_rearranged, may_count, worth_it = False, False, None
    fails_for_good = True  # torch keeps the memory of captures that fail
    bytes = 0  # torch's pools know

    def __init__(self, device: torch.device):
        self.device = device

    def warm_up(self, step: Step) -> None:
        """Run a step on the stream that will record: libraries keep their workspaces by stream."""
        with _one_at_a_time, torch.cuda.device(self.device):
            stream, current = _stream(self.device), torch.cuda.current_stream()
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                step()
            current.wait_stream(stream)

    def capture(self, step: Step) -> Step:
        """Record a step without running it, and return its replay; RuntimeError where it cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        with (
            _one_at_a_time,
            torch.cuda.device(self.device),
            torch.cuda.stream(torch.cuda.current_stream(self.device)),  # put back, which a failing capture does not
            torch.cuda.graph(graph, stream=_stream(self.device), capture_error_mode="thread_local"),
        ):
            step()
        return graph.replay


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


class CpuTape:
    """Records a step on a CPU, see ops.tape: the second of those that run as they are.

    Of steps that take 33 ms on SEW-ResNet18 with 16 samples, 6 were Python's and autograd's. What the engine leaves to
    torch's own products is not worth it: they write into new memory, and to copy that takes as long as is saved.
    """

    most_samples = 128  # of which 4 % is saved with 64 planes, and a seventh with 16
    only_rearranged, may_count = True, True
    worth_it = 12  # to record takes as long as is saved by several replays
    fails_for_good = False

    def warm_up(self, step: Step) -> None:
        """Run a step, and note what it does."""
        self.tape = tape.record(step)
        self.bytes = self.tape.bytes

    def capture(self, step: Step) -> Step:
        """Return the replay of that step; RuntimeError where it cannot be replayed."""
        if self.tape.refused:
            raise RuntimeError(self.tape.refused)
        return self.tape.play


def recorder_on(device: torch.device) -> CudaGraph | CpuTape | None:
    """Return what records steps on a device, or None where nothing does."""
    if device.type == "cpu":
        return CpuTape()
    return CudaGraph(device) if device.type == "cuda" else None
