"""What every test gets: a seed, poisoned memory, deterministic random cases; and a reason where there is no GPU.

The whole suite (`pytest` alone) runs in two processes; what is chosen on the command line runs in one.
"""

import os
import random
from pathlib import Path

# Before torch is imported: threads that spin while they wait make a busy machine ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis
import numpy
import pytest
import torch

from fastsnn.ops import library

if path := os.environ.get("FASTSNN_TEST_CPU_LIBRARY"):  # see test_sanitizers.py
    library.LIBRARY = Path(path)

hypothesis.settings.register_profile(
    "fastsnn",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink],
)
hypothesis.settings.load_profile("fastsnn")


@pytest.fixture(autouse=True)
def seeds():
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fill what torch.empty and its family return with NaN: a number nobody wrote cannot pass for a result."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.utils.deterministic.fill_uninitialized_memory = filled
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


# The parts that take longest, longest first: begun last, one of them would run on while the other process has no work.
LONGEST = (
    "tests/test_cuda.py::TestCompiled",
    "tests/test_sanitizers.py",
    "tests/sweep/",
    "tests/test_triton.py",
    "tests/ops/test_integrate_fire.py",
    "tests/test_cli.py",
    "tests/test_bench_",
)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Share the whole suite between two processes, where there is pytest-xdist and no GPU to be shared too."""
    option, is_worker = config.option, hasattr(config, "workerinput")
    whole = config.args_source is config.ArgsSource.TESTPATHS and not (option.keyword or option.markexpr)
    alone = is_worker or option.usepdb or option.capture == "no" or option.collectonly or torch.cuda.is_available()
    if whole and not alone and getattr(option, "numprocesses", 0) is None:
        option.numprocesses, option.dist, option.loadscopereorder = 2, "loadscope", False


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):
        last = len(LONGEST)
        items.sort(key=lambda item: next((i for i, part in enumerate(LONGEST) if item.nodeid.startswith(part)), last))
    if torch.cuda.is_available():
        return
    build = "" if torch.version.cuda else " (a torch without CUDA)"
    why = f"needs a CUDA device, torch.cuda.is_available() is False{build}"
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=why))
