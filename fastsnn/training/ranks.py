"""The processes that train one network together, as torchrun starts them.

    torchrun --nproc-per-node 2 -m fastsnn train ...

Every process draws the same random numbers, takes its share of each batch, and averages gradients with the others
(torch's DistributedDataParallel; gloo on CPUs, nccl on GPUs). Batch norm sees the share of its own process; where it
counts, which is in running statistics, those of the first process are everybody's.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import distributed, nn

_PATIENCE = datetime.timedelta(days=1)  # the others wait while the first one scores and saves


@dataclass(frozen=True)
class Ranks:
    """One of the processes; alone by default.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local: its number among those of its machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    def check_batch(self, name: str, images: int) -> int:
        """Return a batch's number of images; ValueError where it cannot be shared evenly."""
        if images % self.size:
            raise ValueError(f"{name} is {images}, but {self.size} processes share a batch; expected a multiple.")
        return images

    def share(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return this process's part of a batch's places [n]; of the last batch the first images fill what lacks."""
        lacking = -len(chosen) % self.size
        filled = torch.cat([chosen, chosen.repeat(-(-lacking // len(chosen)))[:lacking]]) if lacking else chosen
        return filled.chunk(self.size)[self.rank]

    def joined(self, net: nn.Module) -> nn.Module:
        """Return the network so that its gradients are averaged over all processes, which take the first's weights."""
        if self.size == 1:
            return net
        on_gpu = next(net.parameters()).is_cuda
        return nn.parallel.DistributedDataParallel(net, device_ids=[self.local] if on_gpu else None)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Return the mean over all processes, a number; in place."""
        if self.size > 1:
            distributed.all_reduce(value)
            value /= self.size
        return value

    def first_says(self, value: bool) -> bool:
        """Return what the first process passes; all wait for it."""
        said = [value]
        if self.size > 1:
            distributed.broadcast_object_list(said)
        return said[0]


def speaks() -> bool:
    """Tell whether this process is the one of its machine that says what all of them would."""
    return count() == 1 or os.environ["LOCAL_RANK"] == "0"


def count() -> int:
    """Return how many processes torchrun has started, 1 where it has not."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


@contextlib.contextmanager
def of_torchrun(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the processes that torchrun has started, for a block of code (the outermost); alone without torchrun.

    Args:
        device: "auto", "cpu" or "cuda"; or, alone, any device.

    Yields:
        This process among them, and its device.

    Raises:
        ValueError: there are more processes on a machine than GPUs, or all would take the same one.
    """
    size = count()
    if size == 1:
        yield Ranks(), device
        return
    local, here = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    gpus = torch.cuda.device_count()
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device is {device!r}, but {size} processes cannot share one; expected auto, cpu or cuda.")
    on_gpu = device == "cuda" or (device == "auto" and gpus > 0)
    if on_gpu and here > gpus:
        raise ValueError(f"torchrun started {here} processes here, but torch sees {gpus} GPUs; start one for each.")
    if on_gpu:
        torch.cuda.set_device(local)
    joins = not distributed.is_initialized()  # once: torchrun's store serves no second meeting
    if joins:
        distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(int(os.environ["RANK"]), size, local), f"cuda:{local}" if on_gpu else "cpu"
    finally:
        if joins:
            distributed.destroy_process_group()
