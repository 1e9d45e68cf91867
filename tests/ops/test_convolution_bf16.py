import pytest
import torch

from fastsnn.ops import library
from fastsnn.ops.convolution import Convolution

from . import cases
from .test_convolution import STEM, Case, tensors

pytestmark = pytest.mark.skipif(not library.has_bf16(), reason="this processor does not multiply bfloat16")
TABLE = {
    "stem": STEM,
    "odd map": STEM._replace(outputs=33, size=(9, 13)),
    "strided on 8x8": Case(64, 70, 3, 2, 1, (8, 8)),
    "strided on 2x2": Case(35, 64, 3, 2, 1, (2, 2)),
    "wide rim": Case(2, 7, 3, 1, 4, (5, 6)),
}
every_case = pytest.mark.parametrize("case", TABLE.values(), ids=TABLE.keys())


@every_case
def test_the_input_gradient_is_that_of_rounded_factors_summed_in_float32(case):
    weight, _, grad = tensors(case, 7)
    convolution = Convolution(weight, case.stride, case.padding, torch.bfloat16)
    factors = weight.bfloat16().double(), grad.permute(0, 3, 1, 2).bfloat16().double()
    shape = (7, case.inputs, *case.size)
    expected = torch.nn.grad.conv2d_input(shape, *factors, case.stride, case.padding).permute(0, 2, 3, 1)
    got = convolution.backward(grad, case.size)
    assert got.dtype == torch.float32
    assert (got - expected).norm() <= 1e-6 * expected.norm()


@every_case
def test_forward_stays_as_it_is_in_float32(case):
    weight, frames, _ = tensors(case, 3)
    rounded, plain = (Convolution(weight, case.stride, case.padding, d) for d in (torch.bfloat16, torch.float32))
    cases.assert_same_bits(rounded.forward(frames), plain.forward(frames))


@every_case
def test_a_frame_has_the_same_bits_alone_and_among_others_on_any_number_of_threads(case):
    weight, _, grad = tensors(case, 45)
    convolution = Convolution(weight, case.stride, case.padding, torch.bfloat16)
    alone = torch.cat([convolution.backward(frame[None], case.size) for frame in grad])
    for n in (1, 2):
        with cases.threads(n):
            cases.assert_same_bits(convolution.backward(grad, case.size), alone, f"{n} threads")


@every_case
def test_no_number_passes_from_one_frame_to_another(case):
    weight, _, grad = tensors(case, 5)
    convolution = Convolution(weight, case.stride, case.padding, torch.bfloat16)
    expected, spoilt = convolution.backward(grad, case.size), grad.clone()
    spoilt[[1, 4]] = torch.nan
    got = convolution.backward(spoilt, case.size)
    cases.assert_same_bits(got[[0, 2, 3]], expected[[0, 2, 3]])
    assert got[[1, 4]].isnan().any()
