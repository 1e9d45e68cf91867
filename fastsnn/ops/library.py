"""The compiled CPU kernels (csrc/cpu), loaded with ctypes and run on torch's own threads.

The one file of the package that touches ctypes. The structs mirror csrc/arguments.h and csrc/cpu/arguments.h field by
field.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from ctypes import c_double, c_float, c_int32, c_int64, c_void_p
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT_BELOW = 2**25  # bytes, the most that glibc takes
LIBRARY = Path(__file__).parent.parent / "_cpu.so"


class IntegrateFireArguments(ctypes.Structure):
    """`struct IntegrateFire` of csrc/arguments.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("x", "v_init", "scale", "shift", "residual", "out")),
        *((name, c_void_p) for name in ("grad_out", "grad_x", "grad_v_init", "grad_residual", "notes", "tally")),
        *((name, c_int64) for name in ("steps", "neurons", "channels", "channel_inner", "samples")),
        ("alpha", c_double),
        *((name, c_float) for name in ("v_threshold", "v_reset", "tau")),
        *((name, c_int32) for name in ("storage", "charge", "junction", "surrogate")),
        *((name, c_int32) for name in ("hard_reset", "detach_reset", "through_affine")),
    ]


class PhaseEncodeArguments(ctypes.Structure):
    """`struct PhaseEncode` of csrc/arguments.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("images", "out")),
        *((name, c_int64) for name in ("steps", "pixels")),
        *((name, c_int32) for name in ("period", "is_float", "weighted")),
    ]


class AttackStepArguments(ctypes.Structure):
    """`struct AttackStep` of csrc/arguments.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("x", "origin", "gradient", "eps", "alpha", "out")),
        *((name, c_int64) for name in ("elements", "samples", "sample_inner")),
        ("exact", c_int32),
    ]


class WinogradArguments(ctypes.Structure):
    """`struct Winograd` of arguments.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("x", "weight", "out", "exact")),
        *((name, c_int64) for name in ("rows", "height", "width", "inputs", "outputs", "tiles_y", "tiles_x")),
        ("tile", c_int32),
    ]


class WinogradFiltersArguments(ctypes.Structure):
    """`struct WinogradFilters` of arguments.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("weight", "out")),
        *((name, c_int64) for name in ("outputs", "inputs", "output_stride", "input_stride", "tap_stride")),
        ("tile", c_int32),
    ]


class WinogradPlanesArguments(ctypes.Structure):
    """`struct WinogradPlanes` of arguments.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("frames", "out")),
        *((name, c_int64) for name in ("rows", "height", "width", "channels", "tiles_y", "tiles_x")),
        *((name, c_int32) for name in ("tile", "is_gradient")),
    ]


class ConvolutionArguments(ctypes.Structure):
    """`struct Convolution` of arguments.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("x", "weight", "out", "exact")),
        *((name, c_int64) for name in ("frames", "height", "width", "inputs", "outputs", "out_height", "out_width")),
        *((name, c_int64) for name in ("kernel", "stride", "padding")),
        ("is_finite", c_int32),
    ]


class MatrixArguments(ctypes.Structure):
    """`struct Matrix` of arguments.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("x", "weight", "out", "exact")),
        *((name, c_int64) for name in ("rows", "inputs", "outputs")),
        ("is_finite", c_int32),
    ]


class ChannelsArguments(ctypes.Structure):
    """`struct Channels` of arguments.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("g", "x", "mean", "factor", "slope", "constant", "out", "partial")),
        *((name, c_int64) for name in ("rows", "channels", "chunk_rows")),
    ]


class FingerprintArguments(ctypes.Structure):
    """`struct Fingerprint` of arguments.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("table", "out")),
        *((name, c_int64) for name in ("tensors", "chunk_bytes")),
    ]


class PoolArguments(ctypes.Structure):
    """`struct Pool` of arguments.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("x", "out", "taps")),
        *((name, c_int64) for name in ("frames", "height", "width", "channels", "out_height", "out_width")),
        *((name, c_int64) for name in ("kernel", "stride", "padding")),
        ("is_max", c_int32),
    ]


class TallyArguments(ctypes.Structure):
    """`struct Tally` of arguments.h."""

    _fields_ = [("x", c_void_p), ("out", c_void_p), ("rows", c_int64), ("numbers", c_int64)]


MOST_ADDED = 128  # of arguments.h


class TallyAddedArguments(ctypes.Structure):
    """`struct TallyAdded` of arguments.h."""

    _fields_ = [
        ("sums", c_void_p * MOST_ADDED),
        *((name, c_void_p) for name in ("out", "times", "table")),
        *((name, c_int64) for name in ("places", "steps", "samples", "all_steps")),
    ]


class MomentumStepArguments(ctypes.Structure):
    """`struct MomentumStep` of arguments.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("adv", "before", "gradient", "origin", "eps", "size", "out")),
        *((name, c_int64) for name in ("elements", "samples", "sample_inner")),
        ("weight", c_float),
    ]


_KERNELS = {
    "integrate_fire_forward": IntegrateFireArguments,
    "integrate_fire_backward": IntegrateFireArguments,
    "phase_encode": PhaseEncodeArguments,
    "attack_step": AttackStepArguments,
    "winograd": WinogradArguments,
    "convolution_forward": ConvolutionArguments,
    "convolution_backward": ConvolutionArguments,
    "matrix": MatrixArguments,
    "matrix_bf16": MatrixArguments,
    "winograd_bf16": WinogradArguments,
    "convolution_backward_bf16": ConvolutionArguments,
    "matrix_int16": MatrixArguments,
    "winograd_int16": WinogradArguments,
    "convolution_forward_int16": ConvolutionArguments,
    "channel_sums": ChannelsArguments,
    "channel_affine": ChannelsArguments,
    "winograd_filters": WinogradFiltersArguments,
    "winograd_planes": WinogradPlanesArguments,
    "fingerprint": FingerprintArguments,
    "pool_forward": PoolArguments,
    "pool_backward": PoolArguments,
    "tally": TallyArguments,
    "tally_added": TallyAddedArguments,
    "momentum_step": MomentumStepArguments,
}


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """Return the library, or None and the reason why there is none."""
    if not LIBRARY.exists():
        return None, "the C++ kernels were not built: install a C++ compiler, then run pip install again"
    try:
        library = ctypes.CDLL(os.fspath(LIBRARY))
        _declare(library)
        lib_dir = Path(torch.__file__).parent / "lib"
        names = ("libtorch_cpu.so", "libtorch_cpu.dylib")
        torch_cpu = next((lib_dir / name for name in names if (lib_dir / name).exists()), None)
        parallel_for = ctypes.CDLL(os.fspath(torch_cpu)).torch_parallel_for if torch_cpu else None
    except (OSError, AttributeError) as error:
        return None, f"the C++ kernels could not be loaded: {error}; run pip install again"
    library.fastsnn_use_parallel_for(ctypes.cast(parallel_for, c_void_p) if parallel_for else None)
    _keep_memory()
    return library, ""


def _keep_memory() -> None:
    """Let glibc keep what is freed for the next tensor, as torch's allocator does on a GPU.

    By default it returns large blocks to the system at once, and each comes back as pages to be faulted in one by one:
    7000 of them, a tenth of the time, in a PGD step of SEW-ResNet18. The largest footprint stays the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BELOW)


def _declare(library: ctypes.CDLL) -> None:
    """Tell ctypes the signatures; raise an OSError if the library was built from other sources than these."""
    library.fastsnn_use_parallel_for.argtypes = [c_void_p]
    library.fastsnn_use_parallel_for.restype = None
    library.fastsnn_has_bf16.argtypes = []
    library.fastsnn_has_bf16.restype = c_int32
    library.fastsnn_isa.argtypes = [c_int32]
    library.fastsnn_isa.restype = ctypes.c_char_p
    library.fastsnn_argument_bytes.argtypes = [c_int32]
    library.fastsnn_argument_bytes.restype = c_int64
    for name, arguments in _KERNELS.items():
        function = getattr(library, f"fastsnn_{name}")
        function.argtypes = [ctypes.POINTER(arguments)]
        function.restype = c_int32
    for i, arguments in enumerate(dict.fromkeys(_KERNELS.values())):
        if library.fastsnn_argument_bytes(i) != ctypes.sizeof(arguments):
            raise OSError(f"{LIBRARY} was built from another version of the sources")


def unavailable() -> str:
    """Return why the C++ kernels cannot run here, or an empty string if they can."""
    return _load()[1]


def instruction_sets() -> list[str]:
    """Return the instruction sets compiled in that this processor has, best first."""
    library = _load()[0]
    names = [library.fastsnn_isa(i) for i in range(4)] if library else []
    return [name.decode() for name in names if name]


def use_instruction_set(name: str) -> None:
    """Run the kernels of another instruction set from now on (for tests and comparisons)."""
    names = instruction_sets()
    if name not in names:
        raise RuntimeError(f"the {name} kernels cannot run here, only {names}. {unavailable()}".rstrip())
    _load()[0].fastsnn_choose_isa(names.index(name))


def has_bf16() -> bool:
    """Tell whether the kernels whose name ends in _bf16 or _int16 can run: the processor multiplies these types."""
    library = _load()[0]
    return library is not None and bool(library.fastsnn_has_bf16())


def run(kernel: str, arguments: ctypes.Structure) -> None:
    """Run one kernel; the caller keeps the tensors alive whose addresses (see `address`) it passes."""
    library = _load()[0]
    if library is None:
        raise RuntimeError(unavailable())
    function = _function(library, kernel)
    call(kernel, function, arguments)
    if _listeners and is_heard():
        _listeners[threading.get_ident()](kernel, function, arguments)


def call(kernel: str, function: Callable, arguments: ctypes.Structure) -> None:
    """Call a kernel by its function, and raise a RuntimeError if it says that it failed."""
    status = function(arguments)
    if status:
        raise RuntimeError(f"the CPU kernel {kernel} failed with status {status}.")


def pointers(arguments: ctypes.Structure) -> dict[tuple[str, int | None], int]:
    """Return the addresses among a kernel's arguments by name, and by place where it has several; no null pointers."""
    found = {}
    for name, kind in arguments._fields_:
        if kind is c_void_p:
            found[name, None] = getattr(arguments, name)
        elif getattr(kind, "_type_", None) is c_void_p:
            found |= {(name, i): address for i, address in enumerate(getattr(arguments, name))}
    return {where: address for where, address in found.items() if address is not None}


def point(arguments: ctypes.Structure, where: tuple[str, int | None], address: int) -> None:
    """Change one of those addresses."""
    name, place = where
    if place is None:
        setattr(arguments, name, address)
    else:
        getattr(arguments, name)[place] = address


def copied(arguments: ctypes.Structure) -> ctypes.Structure:
    """Return a copy of a kernel's arguments."""
    return type(arguments).from_buffer_copy(arguments)


_listeners: dict[int, Callable] = {}  # by thread


@contextlib.contextmanager
def heard_by(listener: Callable[[str, Callable, ctypes.Structure], None]) -> Iterator[None]:
    """Tell `listener` of the kernels that this thread runs inside the block: name, function and arguments."""
    _listeners[threading.get_ident()] = listener
    try:
        yield
    finally:
        del _listeners[threading.get_ident()]


def is_heard() -> bool:
    """Tell whether somebody listens to the kernels of this thread."""
    return threading.get_ident() in _listeners


@contextlib.contextmanager
def memory_given_back() -> Iterator[None]:
    """Return to the system what was kept for the next tensor, before and behind the block; inside, large ones at once.

    Those that find no hole, that is: holes left by smaller ones do not make them more.
    """
    libc = ctypes.CDLL(None)
    mallopt, trim = getattr(libc, "mallopt", None), getattr(libc, "malloc_trim", None)
    if mallopt is None or trim is None:
        yield
        return
    trim(0)
    mallopt(_M_MMAP_THRESHOLD, 2**16)
    try:
        yield
    finally:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BELOW)
        trim(0)


@functools.cache
def _function(library: ctypes.CDLL, kernel: str):
    return getattr(library, f"fastsnn_{kernel}")


def address(tensor: torch.Tensor | None) -> int | None:
    """Return where a tensor's data begins; None becomes a null pointer."""
    return None if tensor is None else tensor.data_ptr()
