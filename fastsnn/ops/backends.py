"""Which implementation of an op runs: a named one or nothing, otherwise the best that works, logged once."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import types
import warnings

import torch

from . import check, gpu, library

NAMES = ("reference", "cpu", "triton", "cuda")
# The first that can run is taken. bench.gpu's measurements are to decide; there are none yet, and Triton needs no cupy.
ON_A_GPU = {
    "integrate_fire": ("triton", "cuda"),
    "phase_encode": ("triton", "cuda"),
    "attack_step": ("triton", "cuda"),
}
log = logging.getLogger("fastsnn")


def unavailable(backend: str, device: torch.device) -> str:
    """Return why `backend` cannot run on tensors of `device`, or an empty string if it can."""
    if backend == "cpu":
        return library.unavailable() if device.type == "cpu" else f"it runs on CPU tensors, these are on {device}"
    if backend == "cuda":
        return gpu.unavailable() if device.type == "cuda" else f"it runs on CUDA tensors, these are on {device}"
    if backend == "triton":
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed (it comes with torch's CUDA builds; or: pip install triton)"
        if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            return f"it runs on CUDA tensors, these are on {device} (TRITON_INTERPRET=1 interprets it on a CPU, slowly)"
    return ""


def implementation(op: str, backend: str | None, device: torch.device) -> types.ModuleType:
    """Return the module of `op` to run: fastsnn.ops.<op>.<backend>. See choose."""
    return _module(op, choose(op, backend, device))


@functools.cache
def _module(op: str, name: str) -> types.ModuleType:
    """Import a backend where it is first used: importing Triton takes a while."""
    return importlib.import_module(f"{__package__}.{op}.{name}")


def choose(op: str, backend: str | None, device: torch.device) -> str:
    """Return the name of the backend to run `op` with on `device`.

    Args:
        op: one of ON_A_GPU.
        backend: a name, which must be able to run there, or None for the best one that can.
        device: where the tensors are.

    Raises:
        ValueError: an unknown name.
        RuntimeError: a named backend that cannot run; None never raises.
    """
    if backend is None:
        return _best(op, device.type)
    check.one_of("backend", backend, NAMES)
    reason = unavailable(backend, device)
    if reason:
        raise RuntimeError(f"backend={backend!r} cannot run here: {reason}. Use backend=None for the best that can.")
    return backend


@functools.cache
def _best(op: str, device_type: str) -> str:
    names = ON_A_GPU[op] if device_type == "cuda" else ("cpu",)
    reasons = {name: unavailable(name, torch.device(device_type)) for name in names}
    best = next((name for name in names if not reasons[name]), None)
    _say(best or "reference", device_type, "; ".join(reasons.values()))
    return best or "reference"


@functools.cache
def _say(best: str, device_type: str, reasons: str) -> None:
    """Say once, not for every op, what runs."""
    if best == "reference":
        slow = f"fastsnn runs its slower reference implementation on {device_type} tensors: {reasons}."
        warnings.warn(slow, stacklevel=2)
    else:
        log.info("fastsnn runs its %r kernels on %s tensors", best, device_type)
