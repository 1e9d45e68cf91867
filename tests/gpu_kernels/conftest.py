"""The GPU's kernels on a CPU. The same tests run twice: here on the CUDA C++ sources, on a host that plays the device
(host.py), and in a process of its own, which test_triton.py starts, on the Triton kernels with TRITON_INTERPRET=1."""

import os

import pytest

from fastsnn.ops import backends, gpu

from . import host

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton reads it when first imported
collect_ignore_glob = ["test_on_a_gpu.py"] if INTERPRETED else []


@pytest.fixture
def backend(monkeypatch):
    """Name the backend whose kernels can run on CPU tensors here."""
    if INTERPRETED:
        return "triton"
    if host.COMPILER is None:
        pytest.skip("needs a C++ compiler (g++) to run the CUDA sources on the host")
    unavailable = backends.unavailable
    monkeypatch.setattr(gpu, "run", host.run)
    monkeypatch.setattr(backends, "unavailable", lambda name, at: "" if name == "cuda" else unavailable(name, at))
    return "cuda"
