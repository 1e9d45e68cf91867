"""One step of an attack, recorded on a GPU and replayed: one launch instead of hundreds. The file with CUDA graphs.

A recording owns tensors that stay where they are. `load` copies an attack's input into them (a smaller batch is filled up
with zeros), the step reads and writes them in place, and what a replay needs to know (labels, budgets, step sizes) lies
in them too, so that one recording serves a whole sweep. The first steps run as they are, on a stream of their own: they
warm up whatever compiles, tunes or allocates, and are steps of the attack like any other, so that statistics which drift
do so once per step. Recording itself computes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import nn

WARM_UP = 3  # torch's own advice before a capture
_KEPT = 4  # recordings of one network: each holds the memory of a whole step
log = logging.getLogger("fastsnn")


class Recorder:
    """Records what a step does on a device and does it again; the only class that calls CUDA graphs."""

    def __init__(self, device: torch.device):
        self.device, self.stream, self.graph = device, torch.cuda.Stream(device), torch.cuda.CUDAGraph()

    def warm_up(self, step: Callable[[], None]) -> None:
        """Run a step on the stream that will be recorded."""
        with torch.cuda.device(self.device):
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                step()
            torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, step: Callable[[], None]) -> None:
        """Record a step without running it."""
        with torch.cuda.device(self.device), torch.cuda.graph(self.graph, stream=self.stream):
            step()

    def replay(self) -> None:
        """Run the recorded step."""
        with torch.cuda.device(self.device):
            self.graph.replay()


class Recording:
    """A step on tensors of its own, and its replay.

    Args:
        tensors: by name, what the step reads and writes; copied. Those of one dimension have the batch on axis 0, the
            others on `axis`.
        axis: of the batch.
        step: does one step on such tensors, in place, without looking at a value on the host; keeps nothing else that
            changes between replays.
        kept: whatever else must stay alive for as long as the recording does, and may be asked for.
        recorder: of the device.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        axis: int,
        step: Callable[[Mapping[str, torch.Tensor]], None],
        kept: Any,
        recorder: Recorder,
    ):
        self.tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        self.axis, self.step, self.kept, self.recorder, self.recorded = axis, step, kept, recorder, False

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over the values of tensors of the same kinds, with as many samples or fewer."""
        for name, tensor in tensors.items():
            fill(self.tensors[name], tensor, self.axis if tensor.dim() > 1 else 0)

    def run(self, times: int) -> None:
        """Do so many steps; the first time some as they are, the others recorded.

        Raises:
            RecordingFailedError: the step cannot be recorded; steps are done, `left` of them are not.
        """
        if not self.recorded:
            for _ in range(min(times, WARM_UP)):
                self.recorder.warm_up(self._step)
            times -= min(times, WARM_UP)
            if not times:
                return
            try:
                self.recorder.record(self._step)
            except RuntimeError as error:  # torch raises it for everything that a capture refuses, and for memory
                raise RecordingFailedError(times) from error
            self.recorded = True
        for _ in range(times):
            self.recorder.replay()

    def finish(self, times: int) -> None:
        """Do so many steps as they are."""
        for _ in range(times):
            self._step()

    def _step(self) -> None:
        self.step(self.tensors)


class RecordingFailedError(RuntimeError):
    """A step cannot be recorded; `left` says how many steps are still to be done."""

    def __init__(self, left: int):
        super().__init__("The step cannot be recorded as a CUDA graph.")
        self.left = left


class Recordings:
    """The recordings of one network, which go when its weights change.

    Args:
        mode: "auto" records where that is possible, True raises where it is not, None never records.
    """

    def __init__(self, mode: str | bool | None):
        if mode not in ("auto", True, None):
            raise ValueError(f"graph is {mode!r}, expected 'auto', True or None.")
        self.mode, self.failed = mode, False
        self._kept: dict[Hashable, Recording] = {}
        self._weights: Weights | None = None

    def forget(self) -> None:
        """Drop all."""
        self._kept.clear()
        self._weights = None

    def hold(self, network: Callable, bn: str) -> bool:
        """Tell whether there are recordings, and the network's weights are where and what they were."""
        return bool(self._kept) and self._weights is not None and self._weights.are_those_of(network, bn)

    def find(self, key: Hashable) -> Recording | None:
        """Return the recording with this key, if there is one."""
        return self._kept.get(key)

    def find_larger(self, x: torch.Tensor, axis: int, how: Hashable) -> Recording | None:
        """Return a recording of the same kind, with more samples than x but less than twice as many, if there is one."""
        for samples in range(x.shape[axis] + 1, 2 * x.shape[axis]):
            shape = torch.Size([samples if i == axis else n for i, n in enumerate(x.shape)])
            found = self.find((shape, x.dtype, x.device, how)) if x.is_contiguous() else None
            if found is not None:
                return found
        return None

    def keep(self, key: Hashable, recording: Recording, network: Callable) -> None:
        """Keep a recording for later attacks; of too many the oldest goes."""
        if not self._kept:
            self._weights = Weights(network) if isinstance(network, nn.Module) else None
        self._kept[key] = recording
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]

    def fail(self, error: BaseException) -> None:
        """Go on without recordings and say why, once; with mode True raise."""
        reason = str(error.__cause__ or error).strip().splitlines()
        reason = reason[0] if reason else type(error).__name__
        if self.mode is True:
            raise RuntimeError(f"graph is True, but the attack's step cannot be recorded: {reason}") from error
        if not self.failed:
            log.warning("fastsnn attacks run without CUDA graphs: %s", reason)
        self.failed = True


class Weights:
    """The values of a network's parameters and buffers, and where they lie.

    torch does not count all changes (`.data`, fused optimizers), so the values themselves are compared, on the device.
    """

    def __init__(self, network: nn.Module):
        self.tensors = _tensors(network)  # aliases: what a recording reads stays alive
        self.values = [tensor.clone() for tensor in self.tensors]
        self.parameters = len(list(network.parameters()))

    @torch.no_grad()
    def are_those_of(self, network: nn.Module, bn: str) -> bool:
        """Compare; the statistics of norms only with bn="frozen", where attacks read them."""
        now = _tensors(network)
        if len(now) != len(self.tensors):
            return False
        for a, b in zip(now, self.tensors, strict=True):
            if a.data_ptr() != b.data_ptr() or a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
                return False
        read = len(now) if bn == "frozen" else self.parameters
        differ = [(a != b).any() for a, b in zip(now[:read], self.values[:read], strict=True)]
        return not differ or not bool(torch.stack(differ).any())  # one wait for the device


def key_of(x: torch.Tensor, how: Hashable) -> tuple:
    """Return what tells recordings apart: the input's shape, dtype, device and layout (contiguous), and `how`."""
    return (x.shape, x.dtype, x.device, how) if x.is_contiguous() else (x.shape, x.dtype, x.device, how, x.stride())


def fill(static: torch.Tensor, tensor: torch.Tensor, axis: int) -> None:
    """Copy a tensor into the first samples of a larger one, and zeros into the others."""
    samples = tensor.shape[axis]
    static.narrow(axis, 0, samples).copy_(tensor)
    static.narrow(axis, samples, static.shape[axis] - samples).zero_()


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    return [tensor.detach() for tensor in (*network.parameters(), *buffers)]
