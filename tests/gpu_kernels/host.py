"""Stands in for fastsnn.ops.gpu: compiles units of csrc/cuda with a C++ compiler and runs them on CPU tensors."""

import atexit
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from fastsnn.ops import cuda_units
from fastsnn.ops.cuda_units import Unit

COMPILER = os.environ.get("CXX") or shutil.which("g++")
# -Bsymbolic: libc has functions of such names (step) too, which would be taken first
_FLAGS = ("-std=c++20", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-pthread", "-Wl,-Bsymbolic")
_WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-parentheses")
# as strict about alignment and overflow as a GPU is: a wrong access of 16 bytes ends the process
_STRICT = ("-fsanitize=undefined", "-fno-sanitize-recover")


def run(unit: Unit, kernel: str, arguments: ctypes.Structure, blocks: int, device) -> None:
    """Do what gpu.run does, on the host."""
    getattr(_library(unit), f"play_{kernel}")(ctypes.byref(arguments), ctypes.c_int64(blocks))


@functools.cache
def _library(unit: Unit) -> ctypes.CDLL:
    source = cuda_units.folder() / "cuda" / f"{unit.source}.cu"
    macros = [f'-DSOURCE="{source}"', *(f"-D{macro}" for macro in unit.macros)]
    if unit.source == "phase_encode":
        macros.append("-DENCODES")
    path = Path(_folder()) / f"{unit.name}.so"
    command = [COMPILER, *_FLAGS, *_WARNINGS, *_STRICT, *macros, Path(__file__).parent / "host.cpp", "-o", path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(os.fspath(path))


@functools.cache
def _folder() -> str:
    folder = tempfile.TemporaryDirectory(prefix="fastsnn-host-")
    atexit.register(folder.cleanup)
    return folder.name
