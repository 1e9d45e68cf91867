"""The CPU kernels under the address and undefined-behaviour sanitizers: the tests that call them, in a process."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .gpu_kernels.host import COMPILER

ROOT = Path(__file__).parent.parent
FLAGS = ("-std=c++17", "-Og", "-g1", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
SANITIZERS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-shared",
    "-fPIC",
    "-fvisibility=hidden",
)
# what is asked of the reference alone, by its id or its name, and a graph around kernels that others call with more
WITHOUT_A_KERNEL = (
    "[reference or -reference- or -reference] or plain_autograd_model or compiled_graph or "
    "are_those_of_spikingjelly[ or any_neuron_at_any_size_is_that_of_spikingjelly or one_difference_to_spikingjelly"
)


@pytest.fixture
def runtime() -> str:
    """Return the libraries of the sanitizer, which have to be loaded before all others."""
    if COMPILER is None:
        pytest.skip("needs a C++ compiler (g++)")
    names = ("libasan.so", "libstdc++.so.6")  # without the second the first does not find what throws exceptions
    found = [subprocess.run([COMPILER, f"-print-file-name={name}"], capture_output=True, text=True) for name in names]
    paths = [one.stdout.strip() for one in found]
    if not all(Path(path).is_absolute() for path in paths):
        pytest.skip(f"{COMPILER} brings no libasan.so")
    return " ".join(paths)


def test_no_kernel_leaves_its_memory_or_the_language(runtime, tmp_path):
    chosen = ("tests/ops", "--ignore=tests/ops/test_cases.py", "-k", f"not ({WITHOUT_A_KERNEL})")
    run = _pytest(_build(ROOT / "csrc", tmp_path), runtime, *chosen, "-s")
    tail = (run.stdout + run.stderr)[-4000:]
    assert run.returncode == 0, tail
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed and int(passed[1]) > 250, tail


def test_a_kernel_that_writes_past_its_tensor_is_caught(runtime, tmp_path):
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    step = tmp_path / "csrc/cpu/attack_step.inl"
    right, wrong = "out[i] = y > 1.0f", "out[i + 4] = y > 1.0f"
    assert right in step.read_text()
    step.write_text(step.read_text().replace(right, wrong))
    run = _pytest(_build(tmp_path / "csrc", tmp_path), runtime, "tests/ops/test_attack_step.py", "-x", "-s")
    assert run.returncode != 0 and "heap-buffer-overflow" in run.stderr, (run.stdout + run.stderr)[-4000:]


def _build(sources: Path, folder: Path) -> Path:
    library = folder / "_cpu.so"
    subprocess.run([COMPILER, *FLAGS, *SANITIZERS, sources / "cpu/kernels.cpp", "-o", library], check=True)
    return library


def _pytest(library: Path, runtime: str, *arguments) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "FASTSNN_TEST_CPU_LIBRARY": os.fspath(library),
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps what it has until it ends
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
