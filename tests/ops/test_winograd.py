import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fastsnn.ops import library
from fastsnn.ops.matrix import panels
from fastsnn.ops.winograd import Filter, reference, weight_gradient

from . import cases

CHANNELS = st.sampled_from([1, 3, 15, 16, 17, 32, 33, 70])
SHAPES = {  # inputs, outputs, map, tile
    "2x2": (17, 33, (2, 2), 2),
    "2x2 by tiles of 4": (17, 33, (2, 2), 4),
    "4x4": (16, 32, (4, 4), 4),
    "5x9": (3, 70, (5, 9), 4),
    "1x7": (40, 5, (1, 7), 4),
    "8x8": (64, 64, (8, 8), 4),
    "1 channel": (1, 1, (6, 6), 4),
}
every_instruction_set = pytest.mark.parametrize("isa", library.instruction_sets())
every_shape = pytest.mark.parametrize("shape", SHAPES)


def convolved(frames, weight):
    """The specification of the specification, in the type of its arguments."""
    return F.conv2d(frames.permute(0, 3, 1, 2), weight, None, 1, 1).permute(0, 2, 3, 1)


def tensors(shape, N):
    inputs, outputs, size, tile = SHAPES[shape]
    return torch.randn(N, *size, inputs), torch.randn(outputs, inputs, 3, 3) / (3 * inputs**0.5), tile


# The algebra


@pytest.mark.parametrize("tile", reference.MATRICES)
def test_in_one_dimension_the_matrices_filter_a_signal(tile):
    gather, filters, scatter = (torch.tensor(m, dtype=torch.double) for m in reference.MATRICES[tile])
    x, w = torch.randn(gather.shape[1], dtype=torch.double), torch.randn(3, dtype=torch.double)
    around = x if tile == 4 else F.pad(x, (1, 1))  # a tile of 2 is a whole padded map
    torch.testing.assert_close(scatter @ ((filters @ w) * (gather @ x)), around.unfold(0, 3, 1) @ w)


@given(st.integers(0, 3), CHANNELS, CHANNELS, st.integers(1, 9), st.integers(1, 9))
def test_the_reference_is_a_padded_convolution(N, inputs, outputs, H, W):
    frames, weight = torch.randn(N, H, W, inputs).double(), torch.randn(outputs, inputs, 3, 3).double()
    for tile in (4, 2) if (H, W) == (2, 2) else (4,):
        out = reference.convolution(frames, reference.filters(weight, tile), tile)
        torch.testing.assert_close(out, convolved(frames, weight))


# The kernel


@given(st.integers(0, 5), CHANNELS, CHANNELS, st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_a_map_of_any_size_is_filtered(N, inputs, outputs, H, W, seed):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 3, (N, H, W, inputs), generator=generator).float()
    weight = torch.randint(-4, 5, (outputs, inputs, 3, 3), generator=generator).float()
    expected = convolved(frames.double(), weight.double())
    allowed = 1e-6 * convolved(frames.double(), weight.double().abs()).amax() if N else 0
    for isa in library.instruction_sets():
        with cases.instruction_set(isa):
            out = Filter(weight, 4)(frames)
        assert out.shape == expected.shape and out.is_contiguous()
        assert ((out - expected).abs() <= allowed).all(), isa


@given(st.integers(0, 100), CHANNELS, CHANNELS, st.integers(0, 1000))
def test_small_integers_on_a_2x2_map_are_exact(N, inputs, outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(-3, 4, (N, 2, 2, inputs), generator=generator).float()
    weight = torch.randint(-9, 10, (outputs, inputs, 3, 3), generator=generator).float()
    expected = convolved(frames.double(), weight.double()).float()
    for isa in library.instruction_sets():
        with cases.instruction_set(isa):
            cases.assert_same_bits(Filter(weight, 2)(frames), expected, isa, signed_zeros=False)


@every_instruction_set
@every_shape
def test_tiles_of_4_err_at_most_9_times_and_tiles_of_2_at_most_3_times_as_much_as_a_plain_convolution(isa, shape):
    _, weight, tile = tensors(shape, 1)
    inputs, _, size, _ = SHAPES[shape]
    frames = torch.randint(0, 3, (50, *size, inputs)).float()
    exact, plain = convolved(frames.double(), weight.double()), convolved(frames, weight)
    with cases.instruction_set(isa):
        cases.assert_errs_at_most(9 if tile == 4 else 3, Filter(weight, tile)(frames), plain, exact)


@given(
    CHANNELS, CHANNELS, st.integers(1, 13), st.integers(1, 9), st.sampled_from([0.05, 0.2, 0.6]), st.integers(0, 999)
)
def test_zeros_are_those_of_the_plain_sum(inputs, outputs, H, W, share, seed):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(4, H, W, inputs, generator=generator)
    frames *= torch.rand(4, H, W, 1, generator=generator) < share
    frames[torch.rand(frames.shape, generator=generator) < 0.1] = -0.0
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
    zeros = convolved(frames, weight) == 0
    for tile in (4, 2) if (H, W) == (2, 2) else (4,):
        assert torch.equal(reference.convolution(frames, reference.filters(weight, tile), tile) == 0, zeros)
        for isa in library.instruction_sets():
            with cases.instruction_set(isa):
                assert torch.equal(Filter(weight, tile)(frames) == 0, zeros), isa
        if library.has_bf16():
            assert (Filter(weight, tile, dtype=torch.bfloat16)(frames)[zeros] == 0).all()


@every_instruction_set
def test_a_weight_that_is_not_finite_is_seen_in_empty_windows_too(isa):
    weight = torch.ones(3, 2, 3, 3)
    weight[1, 0, 1, 1] = torch.inf
    with cases.instruction_set(isa):
        out = Filter(weight, 4)(torch.zeros(1, 8, 8, 2))
    assert out[..., 1].isnan().all() and (out[..., [0, 2]] == 0).all()


@every_instruction_set
@every_shape
def test_a_frame_has_the_same_bits_alone_and_among_others_on_any_number_of_threads(isa, shape):
    frames, weight, tile = tensors(shape, 40)
    with cases.instruction_set(isa):
        filtered = Filter(weight, tile)
        alone = torch.cat([filtered(frame[None]) for frame in frames])
        for n in (1, 2):
            with cases.threads(n):
                for N in (40, 17, 3):
                    cases.assert_same_bits(filtered(frames[:N]), alone[:N], f"{N} frames on {n} threads")


@every_instruction_set
@every_shape
def test_no_number_passes_from_one_frame_or_call_to_another(isa, shape):
    frames, weight, tile = tensors(shape, 9)
    spoilt = frames.clone()
    spoilt[[2, 8]] = torch.nan
    with cases.instruction_set(isa), cases.threads(1):
        filtered = Filter(weight, tile)
        expected = filtered(frames)
        spared = [0, 1, 3, 4, 5, 6, 7]
        cases.assert_same_bits(filtered(spoilt)[spared], expected[spared])
        filtered(torch.full_like(frames, torch.nan))  # stays in the thread's scratch memory
        cases.assert_same_bits(filtered(frames[:1]), expected[:1])


def test_frames_and_weights_may_lie_in_memory_as_they_like():
    frames, weight, tile = tensors("5x9", 3)
    expected = Filter(weight, tile)(frames)
    for layout in ("transposed", "sliced", "channels_last", "unaligned"):
        out = Filter(cases.lay_out(weight, layout), tile)(cases.lay_out(frames, layout))
        cases.assert_same_bits(out, expected, layout)


@every_shape
def test_without_the_library_the_reference_stands_in(shape, monkeypatch):
    frames, weight, tile = tensors(shape, 3)
    expected = Filter(weight, tile)(frames)
    monkeypatch.setattr(library, "unavailable", lambda: "not built")
    monkeypatch.setattr(library, "run", None)
    out = Filter(weight, tile)(frames)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    assert out.is_contiguous() and Filter(weight, tile)(frames[:0]).shape == expected[:0].shape


@every_instruction_set
@every_shape
def test_the_gradient_at_the_kernels_errs_at_most_15_times_as_much_as_plain_float32(isa, shape):
    frames, weight, tile = tensors(shape, 6)
    grad = torch.randn(*frames.shape[:3], len(weight))
    x, g = (tensor.double().permute(0, 3, 1, 2) for tensor in (frames, grad))
    exact = torch.nn.grad.conv2d_weight(x, weight.shape, g, padding=1)
    plain = torch.nn.grad.conv2d_weight(x.float(), weight.shape, g.float(), padding=1)
    torch.testing.assert_close(reference.weight_gradient(frames.double(), grad.double(), tile), exact)
    with cases.instruction_set(isa):
        cases.assert_errs_at_most(15, weight_gradient(frames, grad, tile), plain, exact)


@every_instruction_set
@every_shape
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def test_kernels_are_transformed_and_turned_as_the_reference_does_it(isa, shape, layout):
    _, weight, tile = tensors(shape, 3)
    laid_out, turned = weight.contiguous(memory_format=layout), weight.flip(2, 3).transpose(0, 1).contiguous()
    with cases.instruction_set(isa):
        filtered = Filter(laid_out, tile)
        torch.testing.assert_close(filtered.planes, panels(reference.filters(weight, tile)), rtol=3e-7, atol=1e-9)
        assert torch.equal(Filter(laid_out, tile, turned=True).planes, Filter(turned, tile).planes)


@pytest.mark.skipif(not library.has_bf16(), reason="this processor does not multiply bfloat16")
@every_shape
def test_bfloat16_products_err_as_much_as_rounded_planes_multiplied_exactly(shape):
    frames, weight, tile = tensors(shape, 40)
    V, U = reference.gather(frames, tile).bfloat16().float(), reference.filters(weight, tile).bfloat16().float()
    expected = reference.convolution(frames, U, tile) + reference.scatter(
        torch.bmm(V - reference.gather(frames, tile), U), tile, tuple(frames.shape[:3])
    )
    filtered = Filter(weight, tile, dtype=torch.bfloat16)
    out = filtered(frames)
    # a plane's value on the edge of two roundings may go either way, as the transforms sum in another order
    assert (out - expected).norm() <= 1e-3 * expected.norm()
    assert (out - convolved(frames, weight)).norm() <= 0.03 * expected.norm()
    with cases.threads(1):
        assert torch.equal(filtered(frames), out) and torch.equal(filtered(frames[-1:]), out[-1:])
