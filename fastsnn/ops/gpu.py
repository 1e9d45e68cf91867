"""The CUDA C++ kernels (csrc/cuda) on torch's current stream; the one file of the package that touches cupy.

A unit is compiled by NVRTC when it is first called, and kept on disk (see fastsnn.files); where `python setup.py
build_cuda` compiled these very sources, nothing is compiled at run time. Launches can be captured in a CUDA graph once
a unit has been called. cupy.RawModule would flush denormals to zero, so NVRTC is told what to do here.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import logging
from pathlib import Path
from typing import NamedTuple

import numpy
import torch

from .. import files
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


class _Stream(NamedTuple):
    """What cupy takes for a stream."""

    ptr: int


def run(unit: Unit, kernel: str, arguments: ctypes.Structure, blocks: int, device: torch.device) -> None:
    """Run a kernel of `unit` on torch's current stream."""
    stream = torch.cuda.current_stream(device)
    with torch.cuda.device(stream.device_index):
        function = _function(unit, kernel, stream.device_index)
        function((blocks,), (THREADS,), (by_value(arguments),), stream=_Stream(stream.cuda_stream))


def by_value(arguments: ctypes.Structure) -> numpy.ndarray:
    """Return a structure as cupy passes it by value: an array of a single element, which shares its memory."""
    return numpy.frombuffer(arguments, dtype=numpy.dtype((numpy.void, ctypes.sizeof(arguments))))


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
    return _module(unit, device_index).get_function(kernel)


@functools.cache
def _module(unit: Unit, device_index: int):
    """Return a unit, loaded on the current device."""
    import cupy

    module, built = cupy.cuda.function.Module(), BUILT / f"{unit.name}.fatbin"
    if built.exists() and _is_current():
        try:
            module.load(built.read_bytes())
            return module
        except cupy.cuda.driver.CUDADriverError as error:  # e.g. built for other architectures
            log.info("fastsnn compiles %s: what was built does not load on this GPU (%s)", unit.name, error)
    major, minor = torch.cuda.get_device_capability(device_index)
    module.load(compiled(unit, f"sm_{major}{minor}"))
    return module


def compiled(unit: Unit, architecture: str) -> bytes:
    """Return a unit's binary for an architecture such as "sm_90": from the disk, or compiled now and left there.

    Raises:
        RuntimeError: NVRTC refuses it, e.g. because it does not know so new a GPU; the message holds its log.
    """
    from cupy.cuda import nvrtc

    code, options = cuda_units.text(unit.source), (*unit.options(), f"--gpu-architecture={architecture}")
    key = hashlib.sha256(repr((code, options, nvrtc.getVersion())).encode()).hexdigest()[:16]
    try:
        kept = files.cache("cuda") / f"{unit.name}-{architecture}-{key}.cubin"
        if kept.exists():
            return kept.read_bytes()
    except OSError as error:
        kept = None
        log.info("fastsnn compiles %s for this process alone: %s", unit.name, error)
    program = nvrtc.createProgram(code, f"{unit.source}.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        cubin = nvrtc.getCUBIN(program) + b"\0"  # cupy cuts the last byte off, as if it ended a string
    except nvrtc.NVRTCError as error:
        log_of_it = nvrtc.getProgramLog(program).strip()
        raise RuntimeError(f"NVRTC does not compile {unit.name} for {architecture}: {error}. {log_of_it}") from error
    finally:
        nvrtc.destroyProgram(program)
    if kept is not None:
        try:
            files.write(kept, cubin)
        except OSError as error:
            log.info("fastsnn does not keep %s: %s", unit.name, error)
    return cubin


@functools.cache
def _is_current() -> bool:
    """Tell whether what was built was built from the sources that are here."""
    digest = BUILT / "digest"
    return digest.exists() and digest.read_text() == cuda_units.digest()
