import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsnn import functional
from fastsnn.ops import library

from . import cases

BACKENDS = ["reference", "cpu"]
EVERY_PIXEL = torch.arange(256, dtype=torch.uint8).view(2, 2, 8, 8)


# First principles


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("pixel", "bits"),
    [
        (192, [1, 1, 0, 0, 0, 0, 0, 0]),  # the four examples of Kim et al. 2018, table 1
        (1, [0, 0, 0, 0, 0, 0, 0, 1]),
        (128, [1, 0, 0, 0, 0, 0, 0, 0]),
        (255, [1, 1, 1, 1, 1, 1, 1, 1]),
        (0, [0, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_a_pixel_becomes_its_bits_most_significant_first(pixel, bits, backend):
    spikes = functional.phase_encode(torch.tensor([pixel], dtype=torch.uint8), T=8, backend=backend)
    assert spikes.dtype == torch.float32
    assert spikes.flatten().tolist() == bits


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("K", [1, 3, 8, 11, 16])
def test_the_phases_repeat_with_period_k(K, backend):
    spikes = functional.phase_encode(EVERY_PIXEL, T=2 * K + 1, K=K, backend=backend)
    cases.assert_same_bits(spikes[:K], spikes[K : 2 * K])
    cases.assert_same_bits(spikes[0], spikes[2 * K])


@pytest.mark.parametrize("backend", BACKENDS)
def test_weighted_spikes_add_up_to_the_pixel(backend):
    spikes = functional.phase_encode(EVERY_PIXEL, T=8, weighted=True, backend=backend)
    cases.assert_same_bits(spikes.sum(0), EVERY_PIXEL / 256)
    assert spikes[:, -1, -1, -1, -1].tolist() == [2.0 ** -(1 + t) for t in range(8)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("K", range(1, 17))
def test_k_phases_are_the_first_k_bits_of_pixel_256(K, backend):
    spikes = functional.phase_encode(EVERY_PIXEL, T=K, K=K, weighted=True, backend=backend)
    cases.assert_same_bits(spikes.sum(0), torch.floor(EVERY_PIXEL / 256 * 2**K) / 2**K)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("K", range(1, 17))
def test_floats_are_rounded_to_one_of_2_to_the_k_levels(K, backend):
    top = 2**K - 1
    levels = torch.arange(top + 1) if K <= 8 else torch.randint(0, top + 1, (500,))
    spikes = functional.phase_encode((levels / top).float(), T=K, K=K, backend=backend)
    weights = 2.0 ** torch.arange(K - 1, -1, -1)
    cases.assert_same_bits((spikes * weights[:, None]).sum(0), levels.float())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_float_of_one_is_all_spikes_and_to_tensor_images_equal_their_pixels(backend):
    assert functional.phase_encode(torch.ones(3), backend=backend).all()
    to_tensor = EVERY_PIXEL.float() / 255  # torchvision's ToTensor
    from_floats = functional.phase_encode(to_tensor, backend=backend)
    cases.assert_same_bits(from_floats, functional.phase_encode(EVERY_PIXEL, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_halves_are_rounded_to_even(backend):
    spikes = functional.phase_encode(torch.tensor([0.5]), T=1, K=1, backend=backend)
    assert spikes.item() == 0  # level 0.5 of 1


# SpikingJelly 2.0


@pytest.mark.parametrize("T", [8, 10])
def test_spikes_on_uint8_are_those_of_spikingjellys_encoder(T):
    from spikingjelly.activation_based.encoding import WeightedPhaseEncoder

    encoder = WeightedPhaseEncoder(8)
    encoder.reset()
    expected = torch.stack([encoder(EVERY_PIXEL / 256) for _ in range(T)])
    cases.assert_same_bits(functional.phase_encode(EVERY_PIXEL, T=T, K=8, backend="reference"), expected)


def test_no_state_is_kept_between_images():
    functional.phase_encode(EVERY_PIXEL)
    assert not functional.phase_encode(torch.zeros_like(EVERY_PIXEL)).any()


# The C++ kernel against the reference


@st.composite
def images(draw):
    """Pixels of any type, size and layout: few, more than one block of 1024, or enough for several threads."""
    shape = draw(st.sampled_from([(), (1,), (3, 5), (2, 3, 7, 5), (1, 1025), (3, 3, 33, 35), (2, 70001), (4, 0)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    dtype = draw(st.sampled_from([torch.uint8, torch.float32, torch.float16, torch.bfloat16]))
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    if dtype != torch.uint8:
        on_the_grid = draw(st.booleans())
        pixels = (pixels / 256 if on_the_grid else torch.rand(shape, generator=generator)).to(dtype)
    return cases.lay_out(pixels, draw(st.sampled_from(cases.LAYOUTS)) if shape else "contiguous")


@given(images(), st.integers(1, 20), st.integers(1, 16), st.booleans())
def test_the_cpu_kernel_gives_the_bits_of_the_reference(images, T, K, weighted):
    expected = functional.phase_encode(images, T, K, weighted=weighted, backend="reference")
    assert expected.shape == (T, *images.shape)
    for name in library.instruction_sets():
        for n in (1, 2):
            with cases.instruction_set(name), cases.threads(n):
                got = functional.phase_encode(images, T, K, weighted=weighted, backend="cpu")
            cases.assert_same_bits(got, expected, f"{name} on {n} threads")


# Gradients


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_straight_through_gradient_adds_up_over_time(backend):
    images = torch.rand(2, 3).requires_grad_()
    grad_out = torch.randint(-4, 5, (10, 2, 3)).float()
    spikes = functional.phase_encode(images, straight_through=True, backend=backend)
    (gradient,) = torch.autograd.grad(spikes, images, grad_out)
    cases.assert_same_bits(gradient, grad_out.sum(0), signed_zeros=False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_weighted_straight_through_gradient_weighs_every_phase(dtype, backend):
    images = torch.rand(2, 3).to(dtype).requires_grad_()
    spikes = functional.phase_encode(images, T=5, K=3, weighted=True, straight_through=True, backend=backend)
    (gradient,) = torch.autograd.grad(spikes, images, torch.ones(5, 2, 3))
    assert gradient.dtype == dtype
    assert gradient.unique().tolist() == [0.5 + 0.25 + 0.125 + 0.5 + 0.25]


def test_straight_through_changes_no_spike_and_without_it_the_graph_is_cut():
    images = torch.rand(2, 3).requires_grad_()
    cut = functional.phase_encode(images)
    assert not cut.requires_grad
    cases.assert_same_bits(functional.phase_encode(images, straight_through=True).detach(), cut)
    assert not functional.phase_encode(EVERY_PIXEL, straight_through=True).requires_grad


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_maps_images_and_their_gradients():
    images = torch.rand(3, 4, 5)
    got = torch.func.vmap(functional.phase_encode)(images)
    cases.assert_same_bits(got, functional.phase_encode(images).transpose(0, 1))

    def loss(image):
        return (functional.phase_encode(image, weighted=True, straight_through=True).sum(0) * image.detach()).sum()

    gradients = torch.func.vmap(torch.func.grad(loss))(images)
    cases.assert_close(gradients, images * (255 / 256 + 0.75), 1e-6)


# The op as torch sees it


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("images", [EVERY_PIXEL, torch.rand(2, 3, 4).mT, torch.rand(3, 0)], ids=["uint8", "float", "0"])
def test_opcheck_accepts_the_op(images, backend):
    torch.library.opcheck(torch.ops.fastsnn.phase_encode.default, (images, 10, 8, True, backend))


# Bad input


BAD_INPUT = [
    ({"images": torch.tensor([0.5, 1.5])}, ValueError, r"images has values from 0.5 to 1.5, expected .* \[0, 1\]"),
    ({"images": torch.tensor([-1e-6])}, ValueError, "images has values from -1e-06"),
    ({"images": torch.tensor([math.nan, 0.5])}, ValueError, "images has values from nan"),
    ({"images": torch.tensor([math.inf])}, ValueError, "images has values from inf"),
    ({"images": torch.rand(3).double()}, TypeError, "images has dtype float64, expected one of uint8, float32"),
    ({"images": torch.zeros(3, dtype=torch.int64)}, TypeError, "images has dtype int64"),
    ({"images": [[0.5]]}, TypeError, "images is of type list"),
    ({"T": 0}, ValueError, "T is 0, expected an integer of at least 1"),
    ({"T": 2.0}, TypeError, "T is 2.0 of type float, expected an integer"),
    ({"K": 0}, ValueError, "K is 0, expected an integer from 1 to 16"),
    ({"K": 17}, ValueError, "K is 17, expected an integer from 1 to 16"),
    ({"K": True}, TypeError, "K is True"),
    ({"backend": "cpp"}, ValueError, "backend is 'cpp', expected one of .* Did you mean 'cpu'"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), BAD_INPUT, ids=[", ".join(arguments) for arguments, *_ in BAD_INPUT]
)
@pytest.mark.parametrize("straight_through", [False, True], ids=["cut", "straight through"])
def test_bad_input_is_refused_by_name(arguments, error, message, straight_through):
    arguments = {"images": torch.rand(3).requires_grad_(), "straight_through": straight_through, **arguments}
    with pytest.raises(error, match=message):
        functional.phase_encode(**arguments)


def test_a_backend_that_cannot_run_here_is_refused_with_the_reason(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match=r"backend='triton' cannot run here: .*(CUDA tensors|not installed)"):
        functional.phase_encode(torch.rand(3), backend="triton")


@settings(max_examples=20)
@given(images())
def test_images_are_left_as_they_were(images):
    before = images.clone()
    functional.phase_encode(images, backend="cpu")
    cases.assert_same_bits(images, before)
