"""What a sweep ran on: versions, processor, devices. Part of every run.json, and of what `fastsnn doctor` prints."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

import torch

from ..ops import library

CORE = ("fastsnn", "torch", "triton", "numpy")
OPTIONAL = ("scikit-learn", "torchvision", "safetensors", "rich", "matplotlib", "spikingjelly", "cupy-cuda13x")


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that matter, None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in CORE + OPTIONAL:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def describe() -> dict:
    """Return processor, instruction sets of the kernels, threads, devices and system, as JSON would hold them."""
    count = torch.cuda.device_count()
    return {
        "processor": processor(),
        "instruction_sets": library.instruction_sets(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(count)],
        "system": platform.platform(),
    }


def processor() -> str:
    """Return the processor's name as its maker writes it, or its architecture where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
