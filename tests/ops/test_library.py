import ctypes
import re
import warnings
from pathlib import Path

import pytest
import torch

from fastsnn import functional
from fastsnn.ops import backends, library
from fastsnn.ops.convolution import Convolution
from fastsnn.ops.matrix import Matrix
from fastsnn.ops.winograd import Filter

from . import cases

CSRC = Path(__file__).parents[2] / "csrc"
HEADERS = "".join((CSRC / name).read_text() for name in ("arguments.h", "cpu/arguments.h"))


@pytest.fixture
def reload(monkeypatch):
    """Pretend that the compiled library is another file, not loaded yet; undone afterwards."""

    def use(path):
        monkeypatch.setattr(library, "LIBRARY", path)
        library._load.cache_clear()
        backends._best.cache_clear()
        backends._say.cache_clear()

    yield use
    monkeypatch.undo()
    library._load.cache_clear()
    backends._best.cache_clear()
    backends._say.cache_clear()


# Without a usable library


def test_without_the_library_the_reference_runs_and_one_warning_says_why_and_what_to_do(reload, tmp_path):
    x_seq = torch.rand(3, 4)
    expected = functional.multistep_if(x_seq, backend="cpu")
    reload(tmp_path / "_cpu.so")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            cases.assert_same_bits(functional.multistep_if(x_seq), expected)
            leaf = x_seq.clone().requires_grad_()
            functional.multistep_if(leaf).sum().backward()
            assert leaf.grad.abs().sum() > 0
            functional.phase_encode(x_seq)
            functional.attack_step(x_seq, x_seq, x_seq, 0.1, 0.1)
    messages = [str(warning.message) for warning in seen]
    assert len(messages) == 1
    assert re.search(
        r"slower reference .* on cpu tensors: the C\+\+ kernels were not built: install a C\+\+", messages[0]
    )


@pytest.mark.parametrize("content", [b"", b"not a library", bytes(4096)])
def test_a_broken_library_is_reported_not_raised(reload, tmp_path, content):
    broken = tmp_path / "_cpu.so"
    broken.write_bytes(content)
    reload(broken)
    assert library.unavailable().startswith("the C++ kernels could not be loaded: ")
    assert str(broken) in library.unavailable()
    with pytest.warns(UserWarning, match="could not be loaded"):
        functional.multistep_if(torch.rand(3, 4))


def test_a_library_without_our_functions_is_reported_not_raised(reload):
    reload(Path(torch.__file__).parent / "lib" / "libshm.so")
    assert library.unavailable().startswith("the C++ kernels could not be loaded: ")


def test_without_the_library_the_cpu_backend_by_name_is_refused(reload, tmp_path):
    reload(tmp_path / "_cpu.so")
    with pytest.raises(RuntimeError, match=r"backend='cpu' cannot run here: the C\+\+ kernels were not built"):
        functional.multistep_if(torch.rand(3, 4), backend="cpu")
    with pytest.raises(RuntimeError, match="were not built"):
        library.run("phase_encode", library.PhaseEncodeArguments())
    assert library.instruction_sets() == []


# With it


def test_the_library_is_built_and_loads():
    assert library.unavailable() == ""
    assert library.instruction_sets()[-1] == "baseline"


@pytest.mark.parametrize(
    ("struct", "mirror"),
    [
        ("IntegrateFire", library.IntegrateFireArguments),
        ("PhaseEncode", library.PhaseEncodeArguments),
        ("AttackStep", library.AttackStepArguments),
        ("Winograd", library.WinogradArguments),
        ("Convolution", library.ConvolutionArguments),
        ("Matrix", library.MatrixArguments),
    ],
)
def test_the_structs_mirror_the_header_field_by_field(struct, mirror):
    types = {"int64_t": ctypes.c_int64, "int32_t": ctypes.c_int32, "float": ctypes.c_float, "double": ctypes.c_double}
    body = re.search(rf"struct {struct} {{(.*?)}};", HEADERS, re.DOTALL)[1]
    fields = []
    for declaration in re.sub(r"//.*", "", body).split(";"):
        if declaration.strip():
            kind, names = re.fullmatch(r"(?:const )?(\w+\*?) (.*)", declaration.strip(), re.DOTALL).groups()
            c_type = ctypes.c_void_p if kind.endswith("*") else types[kind]
            fields += [(name.strip(), c_type) for name in names.split(",")]
    assert mirror._fields_ == fields


def test_an_instruction_set_that_is_not_there_is_refused():
    with pytest.raises((RuntimeError, ValueError), match="sse9"):
        library.use_instruction_set("sse9")


def test_a_kernel_that_fails_raises(monkeypatch):
    class Library:
        fastsnn_attack_step = staticmethod(lambda arguments: 7)

    monkeypatch.setattr(library, "_load", lambda: (Library, ""))
    with pytest.raises(RuntimeError, match="the CPU kernel attack_step failed with status 7"):
        library.run("attack_step", library.AttackStepArguments())


# The tests' own poison


def test_memory_that_no_kernel_writes_is_nan_in_every_test(monkeypatch):
    monkeypatch.setattr(library, "run", lambda kernel, arguments: None)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for layout in ("contiguous", "channels_last"):
            neuron = cases.Neuron()
            case = cases.Case((3, 2, 4, 5, 6), neuron, dtype, "grid", layout, v_init=True, junction="and")
            for name, tensor in cases.run(case, "cpu").items():
                assert tensor.isnan().all(), f"{name} of {case}"
    assert functional.phase_encode(torch.rand(3, 4), backend="cpu").isnan().all()
    assert functional.attack_step(*torch.rand(3, 5, 4), 0.1, 0.1, backend="cpu").isnan().all()
    frames, weight = torch.rand(2, 5, 5, 3), torch.rand(4, 3, 3, 3)
    convolution = Convolution(weight, stride=1, padding=1)
    assert Matrix(weight[0, 0])(torch.rand(5, 3)).isnan().all()
    assert Filter(weight, tile=4)(frames).isnan().all()
    assert convolution.forward(frames).isnan().all()
    assert convolution.backward(torch.rand(2, 5, 5, 4), (5, 5)).isnan().all()
