"""Products of spikes with weights rounded to 16 bits: exact sums, and float32 where an input is no small integer."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fastsnn.ops import library
from fastsnn.ops.convolution import Convolution
from fastsnn.ops.matrix import LARGEST, PANEL, Matrix, integers
from fastsnn.ops.winograd import Filter

from . import cases

pytestmark = pytest.mark.skipif(not library.has_bf16(), reason="this processor does not multiply int16")
SIZES = st.sampled_from([1, 2, 3, 31, 32, 33, 64, 65, 130])
SPOILT = [0.5, -1.5, LARGEST + 1.0, -LARGEST - 1.0, -(2.0**31), 3e38, torch.inf, -torch.inf, torch.nan]


def spikes(shape, share, generator=None):
    some = torch.rand(shape, generator=generator) < share
    return some * torch.randint(-3, 7, shape, generator=generator).float()


def weights(shape, generator=None):
    """None so small beside the others that 16 bits do not fit them."""
    return torch.randn(shape, generator=generator).sign() * (0.1 + torch.rand(shape, generator=generator))


def rounded(matrix, largest=LARGEST):
    """Return a matrix [inputs, outputs] in units of its columns, and the units, as documented: least ones that fit."""
    inputs, outputs = matrix.shape
    panels = integers(matrix, largest).flatten(0, -2)
    units = panels[:, -2 * PANEL :].contiguous().view(torch.float32).flatten()[:outputs]
    size = matrix.double().abs()
    expected = torch.maximum(size.amax(0) / 32767, size.sum(0) / ((2**31 - 1) / largest - inputs - inputs % 2))
    torch.testing.assert_close(units.double(), torch.where(expected > 0, expected, 1.0), rtol=1e-6, atol=0)
    return (matrix.double() / units.double()).round().clamp(-32767, 32767), units


def product(rows, matrix):
    """The specification: an exact sum, rounded to float32, times the unit."""
    whole, units = rounded(matrix)
    sums = rows.double() @ whole
    assert sums.abs().max() < 2**31
    return sums.float() * units


@given(st.integers(1, 200), SIZES, SIZES, st.sampled_from([0.02, 0.15, 0.5, 1.0]), st.integers(0, 999))
def test_sums_are_exact_at_any_share_of_spikes(rows, inputs, outputs, share, seed):
    generator = torch.Generator().manual_seed(seed)
    x, matrix = spikes((rows, inputs), share, generator), weights((inputs, outputs), generator)
    assert torch.equal(Matrix(matrix, torch.int16)(x), product(x, matrix))


@pytest.mark.parametrize("inputs", [2, 576, 2048, 20000, 99999])
def test_no_sum_overflows(inputs):
    matrix = torch.stack([torch.ones(inputs), -torch.ones(inputs), torch.linspace(-3, 1, inputs)], 1)
    assert Matrix(matrix, torch.int16).dtype == torch.int16
    x = torch.stack([torch.full((inputs,), float(LARGEST)), LARGEST * matrix[:, 2].sign()])
    assert torch.equal(Matrix(matrix, torch.int16)(x), product(x, matrix))


@pytest.mark.parametrize("value", SPOILT, ids=str)
def test_a_row_a_window_or_a_tile_that_holds_no_small_integer_is_multiplied_in_float32(value):
    matrix, weight = weights((70, 40)), weights((33, 7, 3, 3))
    rows, frames = spikes((300, 70), 0.2), spikes((30, 8, 8, 7), 0.2)
    convolve = [Convolution(weight, 2, 1, dtype=dtype).forward for dtype in (torch.float32, torch.int16)]
    filters = [Filter(weight, 4, dtype=dtype) for dtype in (torch.float32, torch.int16)]
    cases_of = [  # what is spoilt, and which outputs have it in their row, window or tile
        ((Matrix(matrix), Matrix(matrix, torch.int16)), rows, (217, 69), [(217,)]),
        (convolve, frames, (29, 7, 7, 6), [(29, 3, 3)]),
        (filters, frames, (29, 7, 7, 6), [(29, slice(4, 8), slice(4, 8))]),
    ]
    for (exact, fast), x, place, reached in cases_of:
        spoilt = x.clone()
        spoilt[place] = value
        expected, in_float32 = fast(x), exact(spoilt)
        for there in reached:
            expected[there] = in_float32[there]
        cases.assert_same_bits(fast(spoilt), expected)


def test_minus_zero_and_the_largest_are_integers():
    matrix = weights((4, 8))
    x = torch.tensor([[-0.0, 0.0, 1.0, LARGEST], [-LARGEST, -0.0, 2.0, -1.0]])
    assert torch.equal(Matrix(matrix, torch.int16)(x), product(x, matrix))


@pytest.mark.parametrize("what", ["subnormal", "one large", "most are 0", "infinite", "not a number"])
def test_a_matrix_that_16_bits_do_not_fit_is_left_to_float32(what):
    matrix = weights((6, 5))
    if what == "subnormal":
        matrix[:, 3] = 1e-42
    elif what == "most are 0":
        matrix[1:, 3] = 0
    else:
        matrix[2, 3] = {"one large": 1e30, "infinite": torch.inf, "not a number": torch.nan}[what]
    x = spikes((20, 6), 0.3)
    cases.assert_same_bits(Matrix(matrix, torch.int16)(x), Matrix(matrix)(x))
    kernels = matrix.t()[:, :, None, None].repeat(1, 1, 3, 3)
    frames = spikes((2, 8, 8, 6), 0.3)
    cases.assert_same_bits(Filter(kernels, 4, dtype=torch.int16)(frames), Filter(kernels, 4)(frames))
    convolve = [Convolution(kernels, 1, 1, dtype=dtype).forward(frames) for dtype in (torch.int16, torch.float32)]
    cases.assert_same_bits(*convolve)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_units_follow_the_weights(scale):
    matrix, x = scale * weights((6, 5)), spikes((20, 6), 0.3)
    matrix[:, 2] = 0
    assert Matrix(matrix, torch.int16).dtype == torch.int16
    assert torch.equal(Matrix(matrix, torch.int16)(x), product(x, matrix))


@given(st.integers(1, 4), SIZES, SIZES, st.integers(1, 9), st.sampled_from([1, 2]), st.integers(0, 999))
def test_a_convolution_is_the_product_with_its_windows(N, inputs, outputs, size, stride, seed):
    generator = torch.Generator().manual_seed(seed)
    frames, weight = spikes((N, size, size, inputs), 0.3, generator), weights((outputs, inputs, 3, 3), generator)
    windows = F.unfold(frames.permute(0, 3, 1, 2), 3, 1, 1, stride).transpose(1, 2)
    matrix = weight.flatten(1).t()
    out = Convolution(weight, stride, 1, dtype=torch.int16).forward(frames)
    assert torch.equal(out.flatten(1, 2), product(windows.flatten(0, 1), matrix).view(N, -1, outputs))


@pytest.mark.parametrize(("channels", "size", "tile"), [(64, 8, 4), (33, 5, 4), (17, 13, 4), (256, 2, 2), (3, 2, 2)])
def test_a_filter_errs_by_less_than_a_thousandth_of_the_outputs_spread(channels, size, tile):
    torch.manual_seed(0)
    frames, weight = spikes((40, size, size, channels), 0.2), torch.randn(48, channels, 3, 3)
    exact = F.conv2d(frames.double().permute(0, 3, 1, 2), weight.double(), None, 1, 1).permute(0, 2, 3, 1)
    out = Filter(weight, tile, dtype=torch.int16)(frames)
    assert 0 < (out - exact).square().mean().sqrt() < 5e-4 * exact.std()
    assert (out - exact).abs().max() < 5e-3 * exact.std()


@pytest.mark.parametrize("op", ["matrix", "convolution", "filter"])
def test_a_frame_has_the_same_bits_alone_and_among_others_on_any_number_of_threads(op):
    frames = spikes((120, 8, 8, 33), 0.2)
    frames[torch.rand(frames.shape) < 1e-4] = 0.5  # some rows, windows and tiles are float32's
    frames[60:] *= torch.rand(60, 1, 1, 1) < 0.5  # so that chunks with many spikes and with few lie beside each other
    weight = weights((40, 33, 3, 3))
    compute = {
        "matrix": lambda x: Matrix(weight[:, :, 1, 1].t(), torch.int16)(x.flatten(0, 2)).unflatten(0, x.shape[:3]),
        "convolution": Convolution(weight, 2, 1, dtype=torch.int16).forward,
        "filter": Filter(weight, 4, dtype=torch.int16),
    }[op]
    alone = torch.cat([compute(frame[None]) for frame in frames])
    for n in (1, 2):
        with cases.threads(n):
            for N in (120, 61, 3):
                cases.assert_same_bits(compute(frames[:N]), alone[:N], f"{N} frames on {n} threads")
