import importlib.util
import logging

import pytest
import torch

from fastsnn import functional
from fastsnn.ops import backends, library

OP, CPU, CUDA = "integrate_fire", torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def first_use():
    """Let every test be the first to ask which backend is best."""
    backends._best.cache_clear()
    backends._say.cache_clear()
    yield
    backends._best.cache_clear()
    backends._say.cache_clear()


@pytest.fixture
def without(monkeypatch):
    """Return a function that hides packages."""

    def hide(*names):
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in names else find_spec(name))

    return hide


def test_none_chooses_the_compiled_kernels_and_says_so_once(caplog):
    with caplog.at_level(logging.INFO, logger="fastsnn"):
        assert [backends.choose(OP, None, CPU) for _ in range(3)] == ["cpu"] * 3
    assert [record.getMessage() for record in caplog.records if record.name == "fastsnn"] == [
        "fastsnn runs its 'cpu' kernels on cpu tensors"
    ]


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_a_named_backend_that_can_run_is_the_one_that_runs(name):
    assert backends.unavailable(name, CPU) == ""
    assert backends.choose(OP, name, CPU) == name


def test_an_unknown_name_is_refused_with_the_known_and_the_near_ones():
    with pytest.raises(
        ValueError, match=r"backend is 'trition', expected one of 'reference', 'cpu', 'triton'.*'triton'\?"
    ):
        backends.choose(OP, "trition", CPU)


@pytest.mark.parametrize("name", [1, True, ["cpu"], "", b"cpu"])
def test_a_name_that_is_no_name_is_refused_too(name):
    with pytest.raises(ValueError, match="backend is "):
        backends.choose(OP, name, CPU)


@pytest.mark.parametrize(
    ("name", "device", "reason"),
    [
        ("cpu", CUDA, "it runs on CPU tensors, these are on cuda"),
        ("triton", CPU, "it runs on CUDA tensors, these are on cpu"),
    ],
)
def test_a_named_backend_on_the_wrong_device_never_falls_back(monkeypatch, name, device, reason):
    if importlib.util.find_spec("triton") is None and name == "triton":
        pytest.skip("triton is not installed")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match=f"backend='{name}' cannot run here: {reason}.*Use backend=None"):
        backends.choose(OP, name, device)


def test_without_triton_the_reason_says_how_to_get_it(without):
    without("triton")
    with pytest.raises(
        RuntimeError, match=r"backend='triton' cannot run here: triton is not installed .*pip install triton"
    ):
        backends.choose(OP, "triton", CUDA)


def test_without_triton_and_cupy_a_gpu_gets_the_reference_and_one_warning(without):
    without("triton", "cupy")
    with pytest.warns(
        UserWarning, match="slower reference implementation on cuda tensors: triton is not installed"
    ) as seen:
        assert [backends.choose(OP, None, CUDA) for _ in range(3)] == ["reference"] * 3
    assert len(seen) == 1


def test_without_triton_a_gpu_gets_cuda_where_cupy_is(without, caplog):
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("cupy is not installed")
    without("triton")
    assert backends.choose(OP, None, CUDA) == "cuda"


def test_the_op_runs_the_backend_it_is_told(monkeypatch):
    ran = []
    monkeypatch.setattr(library, "run", lambda kernel, arguments: ran.append(kernel))
    x_seq = torch.rand(3, 4).requires_grad_()
    functional.multistep_if(x_seq, backend="reference").sum().backward()
    assert ran == []
    functional.multistep_if(x_seq, backend="cpu").sum().backward()
    functional.phase_encode(torch.rand(3), backend="cpu")
    functional.attack_step(torch.rand(3), torch.rand(3), torch.rand(3), 0.1, 0.1, backend="cpu")
    assert ran == ["integrate_fire_forward", "integrate_fire_backward", "phase_encode", "attack_step"]
