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
SPOILT = [0.5, -1.5, LARGEST + 1.0, -LARGEST - 1.0, 3e38, torch.inf, -torch.inf, torch.nan]


def spikes(shape, share, generator=None):
    some = torch.rand(shape, generator=generator) < share
    return some * torch.randint(-3, 7, shape, generator=generator).float()


def rounded(matrix, largest=LARGEST):
    """Return a matrix [inputs, outputs] in units of its columns, and the units, as documented: least ones that fit."""
    inputs, outputs = matrix.shape
    panels = integers(matrix, largest).flatten(0, -2)
    units = panels[:, -2 * PANEL :].contiguous().view(torch.float32).flatten()[:outputs]
    size = matrix.double().abs()
    expected = torch.maximum(size.amax(0) / 32767, size.sum(0) / ((2**31 - 1) / largest - inputs - inputs % 2))
    torch.testing.assert_close(units.double(), torch.where(expected > 1e-37, expected, 1.0), rtol=1e-6, atol=0)
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
    x, matrix = spikes((rows, inputs), share, generator), torch.randn(inputs, outputs, generator=generator)
    assert torch.equal(Matrix(matrix, torch.int16)(x), product(x, matrix))


@pytest.mark.parametrize("inputs", [2, 576, 2048, 20000])
def test_no_sum_overflows(inputs):
    matrix = torch.stack([torch.ones(inputs), -torch.ones(inputs), torch.linspace(-3, 1, inputs)], 1)
    x = torch.stack([torch.full((inputs,), float(LARGEST)), LARGEST * matrix[:, 2].sign()])
    assert torch.equal(Matrix(matrix, torch.int16)(x), product(x, matrix))


@pytest.mark.parametrize("value", SPOILT, ids=str)
def test_what_is_no_small_integer_is_multiplied_in_float32(value):
    x, matrix = spikes((300, 70), 0.2), torch.randn(70, 40)
    x[217, 69] = value
    weight, dtypes = torch.randn(33, 7, 3, 3), (torch.float32, torch.int16)
    convolution = [Convolution(weight, 2, 1, dtype=dtype) for dtype in dtypes]
    filters = [Filter(weight, 4, dtype=dtype) for dtype in dtypes]
    frames = spikes((30, 8, 8, 7), 0.2)
    frames[29, 7, 7, 6] = value
    for _ in range(2):
        cases.assert_same_bits(Matrix(matrix, torch.int16)(x), Matrix(matrix)(x))
        for exact, fast in (filters, [one.forward for one in convolution]):
            cases.assert_same_bits(fast(frames), exact(frames))


def test_minus_zero_and_the_largest_are_integers():
    matrix = torch.randn(4, 8)
    x = torch.tensor([[-0.0, 0.0, 1.0, LARGEST], [-LARGEST, -0.0, 2.0, -1.0]])
    assert torch.equal(Matrix(matrix, torch.int16)(x), product(x, matrix))


@pytest.mark.parametrize("weights", ["zeros", "subnormal", "huge", "one large"])
def test_weights_of_any_size_are_rounded_or_left_to_float32(weights):
    matrix = {
        "zeros": torch.zeros(6, 5),
        "subnormal": torch.full((6, 5), 1e-42),
        "huge": torch.full((6, 5), 1e36),
        "one large": torch.randn(6, 5).index_put((torch.tensor(2), torch.tensor(3)), torch.tensor(1e30)),
    }[weights]
    x = spikes((20, 6), 0.3)
    torch.testing.assert_close(Matrix(matrix, torch.int16)(x), product(x, matrix), equal_nan=True)
    matrix[1, 1] = torch.inf
    cases.assert_same_bits(Matrix(matrix, torch.int16)(x), Matrix(matrix)(x))


@given(st.integers(1, 4), SIZES, SIZES, st.integers(1, 9), st.sampled_from([1, 2]), st.integers(0, 999))
def test_a_convolution_is_the_product_with_its_windows(N, inputs, outputs, size, stride, seed):
    generator = torch.Generator().manual_seed(seed)
    frames, weight = spikes((N, size, size, inputs), 0.3, generator), torch.randn(outputs, inputs, 3, 3)
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
    frames[60:] *= torch.rand(60, 1, 1, 1) < 0.5  # so that chunks with many spikes and with few lie beside each other
    weight = torch.randn(40, 33, 3, 3)
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


def test_without_the_library_nothing_is_rounded(monkeypatch):
    x, matrix = spikes((5, 6), 0.5), torch.randn(6, 7)
    monkeypatch.setattr(library, "unavailable", lambda: "not built")
    monkeypatch.setattr(library, "run", None)
    torch.testing.assert_close(Matrix(matrix, torch.int16)(x), x @ matrix)
