"""The Triton kernels: interpreted on a CPU, compiled for GPUs that need not be here, and run where there is one."""

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
    pytest.skip("with TRITON_INTERPRET=1 nothing is compiled; see tests/triton_interpreter", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget

from fastsnn import functional
from fastsnn.ops.integrate_fire import Neuron

from .ops.cases import LAYOUTS, assert_same_bits, lay_out
from .triton_interpreter.comparisons import (
    DTYPES,
    NEURONS,
    OPTIONS,
    SHAPES,
    STEPS,
    attack_inputs,
    compare_attack_step,
    compare_integrate_fire,
    compare_phase_encode,
    currents,
    extreme_attack_inputs,
    extreme_currents,
    name,
    pictures,
)

ROOT = Path(__file__).parent.parent


def test_the_interpreted_kernels_equal_the_reference():
    command = [sys.executable, "-m", "pytest", "tests/triton_interpreter", "-q", "-p", "no:cacheprovider"]
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


# Run, where there is a GPU


@pytest.mark.gpu
class TestOnAGpu:
    @pytest.mark.parametrize("neuron", NEURONS, ids=name)
    def test_every_neuron_equals_the_reference(self, neuron):
        compare_integrate_fire("cuda", currents(10, 4, 8, 7, 7), **neuron)

    @pytest.mark.parametrize("options", OPTIONS, ids=name)
    def test_every_option_equals_the_reference(self, options):
        compare_integrate_fire("cuda", currents(10, 4, 8, 4, 4), **options)

    @pytest.mark.parametrize("shape", [*SHAPES, (16, 64, 16, 16)], ids=str)
    @pytest.mark.parametrize("steps", STEPS)
    def test_any_size_equals_the_reference(self, steps, shape):
        compare_integrate_fire("cuda", currents(steps, *shape), affine=len(shape) > 1, junction="iand", v_init=True)

    @pytest.mark.parametrize("other_layout", ["contiguous", "channels_last"])
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_any_layout_and_dtype_equals_the_reference(self, layout, other_layout, dtype):
        options = {"affine": True, "v_init": True, "junction": "and_not", "dtype": dtype, "parameter_dtype": dtype}
        x_seq = currents(10, 4, 8, 6, 5)
        compare_integrate_fire("cuda", x_seq, layout=layout, other_layout=other_layout, **options)

    @pytest.mark.parametrize("surrogate", ["atan", "sigmoid", "triangle", "rectangle"])
    @pytest.mark.parametrize("v_reset", [0.0, None])
    @pytest.mark.parametrize("tau", [None, 2.0])
    def test_extreme_currents_equal_the_reference(self, surrogate, v_reset, tau):
        compare_integrate_fire("cuda", extreme_currents(), surrogate=surrogate, v_reset=v_reset, tau=tau)

    @pytest.mark.parametrize("K", [1, 2, 7, 8, 9, 16])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_phase_encode_equals_the_reference(self, K, weighted):
        for images in pictures(16, 3, 33, 35):
            compare_phase_encode("cuda", images, 37, K, weighted)

    @pytest.mark.parametrize("exact", [True, False])
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("batch_axis", range(2))
    def test_attack_step_equals_the_reference(self, layout, batch_axis, exact):
        x, origin, gradient = attack_inputs(10, 6, 3, 17, 19)
        n = x.shape[batch_axis]
        eps, alpha = torch.linspace(0, 0.3, n), torch.linspace(0.2, 0.01, n)
        options = {"batch_axis": batch_axis, "exact": exact}
        compare_attack_step("cuda", lay_out(x, layout), origin, gradient, eps, alpha, **options)
        compare_attack_step("cuda", *extreme_attack_inputs(), 0.1, 0.03, exact=exact)

    def test_more_than_2_to_the_31_elements_are_addressed(self):
        T, neurons = 3, 2**30 + 16
        needed = 3 * T * neurons * 2
        if torch.cuda.mem_get_info()[0] < needed:
            pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory")
        x_seq = torch.full((T, neurons), 0.5, dtype=torch.bfloat16, device="cuda").requires_grad_()
        spikes = functional.multistep_if(x_seq, backend="triton")
        assert torch.equal(spikes.sum(1, dtype=torch.float64).cpu(), torch.tensor([0.0, neurons, 0.0]).double())
        (gradient,) = torch.autograd.grad(spikes, x_seq, spikes)
        assert torch.equal(gradient.amin(1), gradient.amax(1))

    def test_forward_and_backward_can_be_captured_in_a_graph(self):
        x_seq = currents(10, 4, 8, 4, 4).cuda().requires_grad_()
        scale, shift = torch.linspace(0.5, 2, 8).cuda(), torch.zeros(8).cuda()

        def step():
            out = functional.integrate_fire(x_seq, scale=scale, shift=shift, backend="triton")
            return out.detach(), *torch.autograd.grad(out, x_seq, torch.ones_like(out))

        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        with torch.no_grad():
            x_seq.copy_(currents(10, 4, 8, 4, 4, seed=9))
        graph.replay()
        for got, expected in zip(captured, step(), strict=True):
            assert_same_bits(got, expected)

    def test_a_tensor_on_another_gpu_runs_there(self):
        if torch.cuda.device_count() < 2:
            pytest.skip("needs two GPUs")
        compare_integrate_fire("cuda:1", currents(10, 4, 8, 4, 4), affine=True)
        compare_phase_encode("cuda:1", pictures(3, 5, 5)[0], 10, 8, True)
        compare_attack_step("cuda:1", *attack_inputs(3, 5, 5), 0.1, 0.1)
