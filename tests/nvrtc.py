"""NVRTC without a GPU or cupy: the library that comes with torch's CUDA builds compiles for any architecture."""

import ctypes
import functools
import importlib.util
from pathlib import Path

from fastsnn.ops import cuda_units
from fastsnn.ops.cuda_units import Unit


def missing() -> str:
    """Return why NVRTC cannot be called, or an empty string."""
    try:
        _nvrtc()
    except OSError as error:
        return f"needs NVRTC, which comes with torch's CUDA builds: {error}"
    return ""


def cubin(unit: Unit, capability: int) -> bytes:
    """Compile a unit as fastsnn.ops.gpu has it compiled; raise with the compiler's log."""
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    _ok(nvrtc.nvrtcCreateProgram(ctypes.byref(program), cuda_units.text(unit.source).encode(), None, 0, None, None))
    options = [option.encode() for option in (*unit.options(), f"--gpu-architecture=sm_{capability}")]
    status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    if status:
        raise RuntimeError(_read(program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).decode())
    return _read(program, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)


def _read(program, ask_size, ask) -> bytes:
    size = ctypes.c_size_t()
    _ok(ask_size(program, ctypes.byref(size)))
    memory = ctypes.create_string_buffer(size.value)
    _ok(ask(program, memory))
    return memory.raw


def _ok(status: int) -> None:
    if status:
        raise RuntimeError(f"NVRTC failed with status {status}")


@functools.cache
def _nvrtc() -> ctypes.CDLL:
    package = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in package.submodule_search_locations] if package else []
    for folder in folders:
        for builtins in folder.glob("*/lib/libnvrtc-builtins.so.*"):
            ctypes.CDLL(str(builtins))  # NVRTC asks for it by its bare name
        for library in folder.glob("*/lib/libnvrtc.so.*"):
            return ctypes.CDLL(str(library))
    return ctypes.CDLL("libnvrtc.so")
