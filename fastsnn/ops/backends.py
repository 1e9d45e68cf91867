"""Which implementation of an op runs: a named one or nothing, otherwise the best that works, logged once."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import warnings

import torch

from . import check, library

NAMES = ("reference", "cpu", "triton")
log = logging.getLogger("fastsnn")


def unavailable(backend: str, device: torch.device) -> str:
    """Return why `backend` cannot run on tensors of `device`, or an empty string if it can."""
    if backend == "cpu":
        return library.unavailable() if device.type == "cpu" else f"it runs on CPU tensors, these are on {device}"
    if backend == "triton":
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed (it comes with torch's CUDA builds; or: pip install triton)"
        if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            return f"it runs on CUDA tensors, these are on {device} (TRITON_INTERPRET=1 interprets it on a CPU, slowly)"
    return ""


def choose(backend: str | None, device: torch.device) -> str:
    """Return the name of the backend to run on `device`.

    Args:
        backend: a name, which must be able to run there, or None for the best one that can.
        device: where the tensors are.

    Raises:
        ValueError: an unknown name.
        RuntimeError: a named backend that cannot run; None never raises.
    """
    if backend is None:
        return _best(device.type)
    check.one_of("backend", backend, NAMES)
    reason = unavailable(backend, device)
    if reason:
        raise RuntimeError(f"backend={backend!r} cannot run here: {reason}. Use backend=None for the best that can.")
    return backend


@functools.cache
def _best(device_type: str) -> str:
    first = "triton" if device_type == "cuda" else "cpu"
    reason = unavailable(first, torch.device(device_type))
    if not reason:
        log.info("fastsnn runs its %r kernels on %s tensors", first, device_type)
        return first
    warnings.warn(f"fastsnn runs its slower reference implementation on {device_type} tensors: {reason}.", stacklevel=2)
    return "reference"
