"""How large everything is: on a GPU as in the paper and beyond, in a dry run as small as shows that the code works."""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """What the sections measure.

    Attributes:
        networks: depth and pool of SEW-ResNets.
        batches: of attacks that are compared.
        growing: batches of the throughput.
        steps: of an attack; the paper's are 7.
        long: steps of an attack whose recorded steps are timed.
        T: time steps.
        side: of images, pixels.
        layers: channels and side of a SEW-ResNet18's neuron layers.
        kernel_batches: of single kernels.
        gemm: side of square matrix products.
        rounds: of kernels; the median counts.
        turns: of attacks, A B A B; the best counts.
        compiler: torch.compile's backend.
        tests: what pytest is given beside -m gpu.
    """

    networks: tuple[tuple[int, str], ...]
    batches: tuple[int, ...]
    growing: tuple[int, ...]
    steps: int
    long: int
    T: int
    side: int
    layers: tuple[tuple[int, int], ...]
    kernel_batches: tuple[int, ...]
    gemm: int
    rounds: int
    turns: int
    compiler: str
    tests: tuple[str, ...]


FULL = Sizes(
    networks=((18, "max"), (50, "avg")),
    batches=(16, 64, 256),
    growing=tuple(2**i for i in range(4, 14)),
    steps=7,
    long=40,
    T=10,
    side=32,
    layers=((64, 16), (64, 8), (256, 2), (512, 1)),
    kernel_batches=(16, 256),
    gemm=8192,
    rounds=50,
    turns=3,
    compiler="inductor",
    tests=(),
)
DRY = Sizes(
    networks=((18, "max"),),
    batches=(2,),
    growing=(1, 2),
    steps=2,
    long=3,
    T=2,
    side=8,
    layers=((16, 4),),
    kernel_batches=(2,),
    gemm=64,
    rounds=2,
    turns=1,
    compiler="eager",
    tests=("tests/gpu_kernels/test_on_a_gpu.py",),
)
