from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from fastsnn.ops import library
from fastsnn.ops.convolution import Convolution

from . import cases

every_instruction_set = pytest.mark.parametrize("isa", library.instruction_sets())


class Case(NamedTuple):
    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    size: tuple[int, int]


STEM = Case(3, 64, 7, 2, 3, (32, 32))
TABLE = {
    "stem": STEM,
    "stem, odd map": STEM._replace(outputs=33, size=(9, 13)),
    "stride 1": Case(4, 20, 5, 1, 2, (8, 9)),
    "stride above the kernel": Case(2, 40, 3, 5, 1, (17, 12)),
    "1 channel": Case(1, 7, 3, 1, 1, (7, 7)),
}


@st.composite
def geometries(draw):
    kernel = draw(st.integers(1, 8))
    case = Case(
        draw(st.integers(1, 5)),
        draw(st.sampled_from([1, 3, 16, 31, 32, 33, 70])),
        kernel,
        draw(st.integers(1, 5)),
        draw(st.integers(0, kernel - 1)),
        (draw(st.integers(1, 9)), draw(st.integers(1, 20))),
    )
    assume(min(case.size) + 2 * case.padding >= kernel)
    return case


def tensors(case, N, whole=False, generator=None):
    """Return weight, frames and a gradient at the output."""
    C, planes, kernel, stride, padding, size = case
    h, w = ((n + 2 * padding - kernel) // stride + 1 for n in size)
    shapes = (planes, C, kernel, kernel), (N, *size, C), (N, h, w, planes)
    if whole:
        return [torch.randint(-3, 4, shape, generator=generator).float() for shape in shapes]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def ours(case, weight, frames, grad):
    convolution = Convolution(weight, case.stride, case.padding)
    return convolution.forward(frames), convolution.backward(grad, case.size)


def torchs(case, weight, frames, grad):
    """The specification, in the type of its arguments."""
    x, grad = (tensor.permute(0, 3, 1, 2) for tensor in (frames, grad))
    out = F.conv2d(x, weight, None, case.stride, case.padding)
    grad_x = torch.nn.grad.conv2d_input(x.shape, weight, grad, case.stride, case.padding)
    return out.permute(0, 2, 3, 1), grad_x.permute(0, 2, 3, 1)


@given(geometries(), st.integers(0, 5), st.integers(0, 1000))
def test_both_directions_are_exact_on_small_integers_in_every_geometry(case, N, seed):
    given = tensors(case, N, whole=True, generator=torch.Generator().manual_seed(seed))
    exact = torchs(case, *(tensor.double() for tensor in given))
    for isa in library.instruction_sets():
        with cases.instruction_set(isa):
            for got, expected, what in zip(ours(case, *given), exact, ("out", "grad_x"), strict=True):
                cases.assert_same_bits(got, expected.float(), f"{what} with {isa} of {case}", signed_zeros=False)


@every_instruction_set
@pytest.mark.parametrize("case", TABLE)
def test_both_directions_err_at_most_3_times_as_much_as_torchs_convolution(isa, case):
    case = TABLE[case]
    given = tensors(case, 7)
    with cases.instruction_set(isa):
        results = zip(ours(case, *given), torchs(case, *given), torchs(case, *(t.double() for t in given)), strict=True)
        for got, plain, exact in results:
            cases.assert_errs_at_most(3, got, plain, exact)


@every_instruction_set
@pytest.mark.parametrize("case", TABLE)
def test_a_frame_has_the_same_bits_alone_and_among_others_on_any_number_of_threads(isa, case):
    case = TABLE[case]
    weight, frames, grad = tensors(case, 9)
    with cases.instruction_set(isa):
        pairs = [ours(case, weight, frames[i : i + 1], grad[i : i + 1]) for i in range(9)]
        alone = [torch.cat(results) for results in zip(*pairs, strict=True)]
        for n in (1, 2):
            with cases.threads(n):
                for got, expected in zip(ours(case, weight, frames, grad), alone, strict=True):
                    cases.assert_same_bits(got, expected, f"{n} threads")


@every_instruction_set
@pytest.mark.parametrize("case", TABLE)
def test_no_number_passes_from_one_frame_or_call_to_another(isa, case):
    case = TABLE[case]
    weight, frames, grad = tensors(case, 5)
    with cases.instruction_set(isa), cases.threads(1):
        expected = ours(case, weight, frames, grad)
        spoilt = frames.clone(), grad.clone()
        for tensor in spoilt:
            tensor[[1, 4]] = torch.nan
        for got, right in zip(ours(case, weight, *spoilt), expected, strict=True):
            cases.assert_same_bits(got[[0, 2, 3]], right[[0, 2, 3]])
        for got, right in zip(ours(case, weight, frames, grad), expected, strict=True):
            cases.assert_same_bits(got, right)


@every_instruction_set
@pytest.mark.parametrize("case", TABLE)
def test_inputs_of_zero_are_left_out_and_no_bit_changes(isa, case):
    case = TABLE[case]
    weight, frames, _ = tensors(case, 9)
    frames[torch.rand(frames.shape) < 0.85] = 0.0
    with cases.instruction_set(isa):
        convolution = Convolution(weight, case.stride, case.padding)
        assert convolution.is_finite
        left_out = convolution.forward(frames)
        convolution.is_finite = False  # all products, as where a weight is infinite
        cases.assert_same_bits(left_out, convolution.forward(frames))


def test_frames_and_weights_may_lie_in_memory_as_they_like():
    weight, frames, grad = tensors(STEM, 2)
    expected = ours(STEM, weight, frames, grad)
    for layout in ("transposed", "sliced", "channels_last", "unaligned"):
        laid_out = (cases.lay_out(tensor, layout) for tensor in (weight, frames, grad))
        for got, right in zip(ours(STEM, *laid_out), expected, strict=True):
            cases.assert_same_bits(got, right, layout)


@pytest.mark.parametrize("case", TABLE)
def test_without_the_library_torchs_own_convolution_stands_in(case, monkeypatch):
    case = TABLE[case]
    given = tensors(case, 3, whole=True)
    expected = ours(case, *given)
    monkeypatch.setattr(library, "unavailable", lambda: "not built")
    monkeypatch.setattr(library, "run", None)
    for got, right in zip(ours(case, *given), expected, strict=True):
        cases.assert_same_bits(got, right, signed_zeros=False)
        assert got.is_contiguous()
