"""The CUDA C++ kernels (csrc/cuda) on torch's current stream; the one file of the package that touches cupy.

A unit is compiled by NVRTC when it is first called, and kept in cupy's cache on disk; where `python setup.py
build_cuda` compiled these very sources, nothing is compiled at run time. Launches can be captured in a CUDA graph once
a unit has been called.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
from pathlib import Path

import numpy
import torch

from . import cuda_units
from .cuda_units import PACK, THREADS, Unit

BUILT = Path(__file__).parent.parent / "_cuda"  # fatbins, one per unit, and the digest of their sources
log = logging.getLogger("fastsnn")


def unavailable() -> str:
    """Return why the CUDA C++ kernels cannot run here, or an empty string if they can."""
    if importlib.util.find_spec("cupy") is None:
        return "cupy is not installed: pip install 'fastsnn[cuda]'"
    return "" if cuda_units.folder().exists() else f"their sources are missing: {cuda_units.folder()}; install again"


def launch(
    unit: Unit, kernel: str, arguments: ctypes.Structure, numbers: int, width: int, device: torch.device
) -> None:
    """Launch a kernel of `unit` in its wide form, with `width` of so many `numbers` for each thread, or its narrow one.

    The caller keeps the tensors alive whose addresses it passes.
    """
    width = width if is_wide(arguments, numbers, width) else 1
    name = f"{kernel}_{'wide' if width > 1 else 'narrow'}"
    run(unit, name, arguments, blocks(numbers, width), device)


def run(unit: Unit, kernel: str, arguments: ctypes.Structure, blocks: int, device: torch.device) -> None:
    """Run a kernel of `unit` on torch's current stream."""
    import cupy

    stream = torch.cuda.current_stream(device)
    with cupy.cuda.Device(stream.device_index), cupy.cuda.ExternalStream(stream.cuda_stream, stream.device_index):
        by_value = numpy.frombuffer(arguments, dtype=numpy.uint8)
        _function(unit, kernel, stream.device_index)((blocks,), (THREADS,), (by_value,))


def is_wide(arguments: ctypes.Structure, numbers: int, width: int) -> bool:
    """Tell whether all rows can be moved in packs: `numbers` is a multiple of them, and all tensors are aligned."""
    pointers = (getattr(arguments, name) for name, kind in arguments._fields_ if kind is ctypes.c_void_p)
    return numbers % width == 0 and all((pointer or 0) % PACK == 0 for pointer in pointers)


def blocks(numbers: int, width: int) -> int:
    """Return how many blocks `numbers` take."""
    return -(-numbers // (THREADS * width))


@functools.cache
def _function(unit: Unit, kernel: str, device_index: int):
    """Return the kernel, loaded on the current device."""
    import cupy

    path = BUILT / f"{unit.name}.fatbin"
    if path.exists() and _is_current():
        try:
            return cupy.RawModule(path=str(path)).get_function(kernel)
        except cupy.cuda.driver.CUDADriverError as error:  # e.g. built for other architectures
            log.info("fastsnn compiles %s: what was built does not load on this GPU (%s)", unit.name, error)
    code = cuda_units.text(unit.source)
    return cupy.RawModule(code=code, options=unit.options(), backend="nvrtc").get_function(kernel)


@functools.cache
def _is_current() -> bool:
    """Tell whether what was built was built from the sources that are here."""
    digest = BUILT / "digest"
    return digest.exists() and digest.read_text() == cuda_units.digest()
