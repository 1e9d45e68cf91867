"""The CUDA C++ kernels, compiled for GPUs that need not be here; what they compute is in tests/gpu_kernels."""

import ctypes
import functools
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastsnn.ops import cuda_units, gpu
from fastsnn.ops.cuda_units import Unit

from . import nvrtc

triton = pytest.importorskip("triton", reason="needs the tools that Triton brings to read binaries with")
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
CAPABILITIES = (80, 90, 100, 120)


def units(capability: int) -> list[Unit]:
    """Return what is compiled for a GPU: every storage type and span without a leak, then with one.

    With a leak and in half precision a unit of 10 steps takes two minutes to compile for sm_100 and sm_120, one of 4
    steps ten seconds: these two GPUs get those, the other two those of 10 steps.
    """
    found = [Unit("phase_encode"), Unit("attack_step")]
    found += [cuda_units.integrate_fire(storage, steps, 0, False) for storage in range(3) for steps in (4, 10)]
    for storage, surrogate in enumerate((1, 2, 3)):
        steps = 10 if storage == 0 or capability < 100 else 4
        found.append(cuda_units.integrate_fire(storage, steps, surrogate, True))
    return found


@pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing())
@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{}".format)
class TestCompiled:
    def test_no_kernel_spills_registers(self, capability, tmp_path):
        for unit, path in compiled(capability, tmp_path).items():
            usage = _read("cuobjdump", "--dump-resource-usage", path)
            kernels = re.findall(r"Function (\w+):\s+REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", usage)
            assert kernels, usage
            for kernel, _, stack, local in kernels:
                assert (stack, local) == ("0", "0"), f"{kernel} of {unit.name}: {usage}"

    def test_wide_kernels_move_16_bytes_at_a_time(self, capability, tmp_path):
        for unit, path in compiled(capability, tmp_path).items():
            moves = {kernel: _moves_of_16_bytes(code) for kernel, code in _kernels(path).items()}
            if unit.source == "integrate_fire":
                span = int(unit.macros[1].partition("=")[2])
                loads, stores = moves["forward_wide"]
                assert loads >= 2 * span and stores >= span, unit.name  # x and residual, out
                loads, stores = moves["backward_wide"]
                assert loads >= 2 * span and stores >= 2 * span, unit.name  # x and grad_out, grad_x and grad_residual
            elif unit.source == "attack_step":
                loads, stores = moves["step_wide"]
                assert loads >= 3 and stores >= 1, unit.name  # x, origin and gradient
            else:
                assert moves["encode_wide"][1] >= 1, unit.name

    def test_no_product_is_contracted_where_spikes_are_decided(self, capability, tmp_path):
        path = compiled(capability, tmp_path)[cuda_units.integrate_fire(0, 10, 0, False)]
        kernels = _kernels(path)
        found = {kernel: set(re.findall(r"\bF(?:FMA|MUL)\b", code)) for kernel, code in kernels.items()}
        assert found["forward_wide"] == {"FMUL"}
        assert "FFMA" in found["backward_wide"]  # of the surrogate's division: the search can find one


class TestCompiledThroughCupy:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        pytest.importorskip("cupy", reason="needs cupy: pip install 'fastsnn[cuda]'")
        monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path))
        return tmp_path / "cuda"

    def test_denormals_are_kept_where_spikes_are_decided(self, cache):
        gpu.compiled(cuda_units.integrate_fire(0, 10, 0, False), "sm_90")
        (path,) = cache.glob("*.cubin")
        forward = _kernels(path)["forward_wide"]
        arithmetic = re.findall(r"\bF(?:ADD|MUL|SETP|SET)\b[.\w]*", forward)
        assert "FADD" in arithmetic and not [name for name in arithmetic if "FTZ" in name]

    def test_a_unit_is_compiled_once(self, cache, monkeypatch):
        from cupy.cuda import nvrtc

        cubin = gpu.compiled(Unit("phase_encode"), "sm_90")
        monkeypatch.setattr(nvrtc, "createProgram", None)
        assert gpu.compiled(Unit("phase_encode"), "sm_90") == cubin
        (path,) = cache.iterdir()
        assert path.name.startswith("phase_encode-sm_90-")

    def test_without_a_cache_a_unit_is_compiled_all_the_same(self, cache):
        cache.write_text("a file where the folder would be")
        assert gpu.compiled(Unit("phase_encode"), "sm_90").startswith(b"\x7fELF")

    def test_what_nvrtc_refuses_is_told_with_its_log(self, cache):
        with pytest.raises(RuntimeError, match=r"phase_encode for sm_999: .*gpu-architecture"):
            gpu.compiled(Unit("phase_encode"), "sm_999")
        assert not list(cache.iterdir())


def test_arguments_are_passed_as_cupy_passes_structures():
    """cupy takes arrays of a single element by value, and refuses all others."""

    class Arguments(ctypes.Structure):
        _fields_ = (("pointer", ctypes.c_void_p), ("number", ctypes.c_float))

    arguments = Arguments(1, 2.5)
    passed = gpu.by_value(arguments)
    assert passed.size == 1 and passed.nbytes == ctypes.sizeof(arguments)
    assert passed.__array_interface__["data"][0] == ctypes.addressof(arguments)


def test_a_unit_is_named_after_its_macros_and_all_names_differ():
    names = [unit.name for unit in cuda_units.every_unit()]
    assert len(set(names)) == len(names) == 3 * 2 * 4 * 2 + 2
    assert cuda_units.integrate_fire(1, 12, 1, True).name == "integrate_fire-bfloat16-10-SIGMOID-1"


@pytest.mark.parametrize(("steps", "span"), [(1, 4), (4, 4), (5, 10), (10, 10), (11, 10), (70, 10)])
def test_the_least_span_that_holds_all_steps_is_taken_or_the_largest(steps, span):
    assert cuda_units.span(steps) == span


def test_a_source_is_one_text_without_includes():
    text = cuda_units.text("integrate_fire")
    assert "#include <cstdint>" in text and '#include "' not in text
    assert text.count("struct IntegrateFire {") == text.count("struct alignas(16) Pack") == 1


def test_another_source_or_option_has_another_digest(monkeypatch):
    before = cuda_units.digest()
    assert before == cuda_units.digest()
    monkeypatch.setattr(cuda_units, "OPTIONS", ("--std=c++17",))
    assert cuda_units.digest() != before


@functools.cache
def _cubins(capability: int) -> dict[Unit, bytes]:
    longest_first = units(capability)[::-1]
    with ThreadPoolExecutor(2) as pool:
        cubins = pool.map(lambda unit: nvrtc.cubin(unit, capability), longest_first)
        return dict(zip(longest_first, cubins, strict=True))


def compiled(capability: int, folder: Path) -> dict[Unit, Path]:
    """Return files with the compiled units."""
    paths = {}
    for unit, cubin in _cubins(capability).items():
        paths[unit] = folder / f"{unit.name}.cubin"
        paths[unit].write_bytes(cubin)
    return paths


def _read(tool: str, *arguments) -> str:
    path = TOOLS / tool
    if not path.exists():
        pytest.skip(f"this Triton brings no {tool}: {path} is missing")
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout


def _kernels(path: Path) -> dict[str, str]:
    """Return the machine code of each kernel."""
    parts = re.split(r"\.section\s+\.text\.(\w+)", _read("nvdisasm", "--print-code", path))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _moves_of_16_bytes(code: str) -> tuple[int, int]:
    """Return how many loads and stores of 16 bytes there are."""
    return tuple(len(re.findall(rf"\b{name}\.E(?:\.\w+)*\.128\b", code)) for name in ("LDG", "STG"))
