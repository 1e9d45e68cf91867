"""The Triton kernels: interpreted on a CPU, and compiled for GPUs that need not be here."""

import functools
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("with TRITON_INTERPRET=1 nothing is compiled; see tests/gpu_kernels", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget

from fastsnn.ops.integrate_fire import Neuron

from .ops.cases import lay_out

ROOT = Path(__file__).parent.parent


def test_the_interpreted_kernels_equal_the_reference():
    command = [sys.executable, "-m", "pytest", "tests/gpu_kernels", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    tail = (run.stdout + run.stderr)[-3000:]
    assert run.returncode == 0, tail
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed and int(passed[1]) > 250, tail


# Compiled, not run


@pytest.mark.parametrize("capability", [80, 90, 100, 120], ids="sm_{}".format)
class TestCompiled:
    def test_no_kernel_spills_registers(self, capability, tmp_path):
        cuobjdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        if not cuobjdump.exists():
            pytest.skip(f"this Triton brings no cuobjdump to read registers with: {cuobjdump} is missing")
        cubin = tmp_path / "kernel.cubin"
        for case, kernel in compiled(capability).items():
            cubin.write_bytes(kernel.asm["cubin"])
            command = [cuobjdump, "--dump-resource-usage", cubin]
            usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert " STACK:0 " in usage and " LOCAL:0 " in usage, f"{case}: {usage}"

    def test_no_kernel_contracts_products_into_fma(self, capability):
        for case, kernel in compiled(capability).items():
            assert "fma.rn.f32" not in kernel.asm["ptx"], case

    @pytest.mark.parametrize("case", ["forward of 10 steps", "backward of 10 steps", "forward of 70 steps"])
    def test_contiguous_float32_moves_16_bytes_at_a_time(self, capability, case):
        ptx = compiled(capability)[case].asm["ptx"]
        accesses = re.findall(r"(?:ld|st)\.global\S*", ptx)
        assert accesses and all(".v4." in access for access in accesses), accesses


class _Gpu:
    """Stands in for Triton's driver: a GPU of this compute capability that nothing can be launched on."""

    def __init__(self, capability: int):
        self.capability = capability

    def get_current_device(self):
        return self.capability

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", self.capability, 32)


@functools.cache
def compiled(capability: int) -> dict[str, triton.compiler.CompiledKernel]:
    """Return the kernels that calls of each op's triton.py would launch, by what was called."""
    kernels, launched = {}, []

    def launch_nothing(kernel, grid):
        return lambda *arguments, **options: launched.append(kernel.warmup(*arguments, grid=grid, **options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton.runtime.driver, "_active", _Gpu(capability))
        patch.setattr(triton.JITFunction, "__getitem__", launch_nothing)
        for case, (op, function, arguments) in calls().items():
            getattr(importlib.import_module(f"fastsnn.ops.{op}.triton"), function)(*arguments)
            (kernels[case],) = launched
            launched.clear()
    return kernels


def calls():
    """What is compiled: (op, function of its triton.py, arguments), by name."""
    shape, demanding = (2, 8, 8, 8), Neuron(v_reset=0.5, tau=2.0, surrogate="sigmoid", detach_reset=False)
    found = {}
    for T in (1, 10, 16, 70):
        x_seq = torch.empty(T, *shape)
        inputs = (x_seq, None, None, None, None, None, Neuron())
        found[f"forward of {T} steps"] = ("integrate_fire", "forward", inputs)
        found[f"backward of {T} steps"] = ("integrate_fire", "backward", (x_seq, *inputs, True))
    for dtype, T in ((torch.float32, 10), (torch.bfloat16, 10), (torch.float32, 70)):
        x_seq = lay_out(torch.empty(T, *shape, dtype=dtype), "channels_last")
        inputs = (x_seq, torch.empty(shape), torch.empty(8), torch.empty(8), x_seq, "iand", demanding)
        found[f"forward of {T} steps with all options, {dtype}"] = ("integrate_fire", "forward", inputs)
        inputs = (x_seq, *inputs, True)
        found[f"backward of {T} steps with all options, {dtype}"] = ("integrate_fire", "backward", inputs)
    one = torch.empty(10, 1)
    found["forward of one neuron"] = ("integrate_fire", "forward", (one, None, None, None, None, None, Neuron()))
    found["encoded bytes"] = ("phase_encode", "forward", (torch.empty(2, 3, 32, 32, dtype=torch.uint8), 10, 8, False))
    found["encoded floats"] = ("phase_encode", "forward", (torch.empty(2, 3, 32, 32), 10, 8, True))
    x, eps = torch.empty(10, 2, 3, 32, 32), torch.empty(2)
    found["attack step"] = ("attack_step", "forward", (x, x, x, eps, eps, 1, True))
    return found
