"""Encoders: against SpikingJelly's, for any T and type of pixels, and what gradients get through."""

import pytest
import torch
from spikingjelly.activation_based import encoding

import fastsnn
from fastsnn.attacks.independence import are_known
from fastsnn.nn import ENCODERS, DirectEncoder, EventFrames, LatencyEncoder, PhaseEncoder, RateEncoder

LEVELS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
every_coding = pytest.mark.parametrize("coding", ENCODERS)


def spikingjellys(encoder, x, T):
    """Its spikes over T steps, from an encoder that is asked step by step."""
    return torch.stack([encoder(x) for _ in range(T)])


# Rate


@pytest.mark.parametrize("T", [1, 3, 10])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (4, 1, 32, 32), (3, 1, 1, 1)])
def test_rate_coding_is_spikingjellys_from_the_same_random_numbers(shape, T):
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    torch.manual_seed(7)
    expected = spikingjellys(encoding.PoissonEncoder(), images / 255.0, T)
    torch.manual_seed(7)
    assert torch.equal(RateEncoder(T)(images), expected)
    generator = torch.Generator().manual_seed(7)
    assert torch.equal(RateEncoder(T, generator=generator)(images / 255), expected)


def test_the_rate_is_the_pixel():
    T = 4000
    rates = RateEncoder(T)(LEVELS).mean(0)
    share = LEVELS / 255
    assert ((rates - share).abs() <= 5 * (share * (1 - share) / T).sqrt() + 1e-3).all()
    assert not rates[LEVELS == 0].any() and (rates[LEVELS == 255] == 1).all()


def test_a_generator_repeats_itself_and_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    encoder = RateEncoder(5, generator=torch.Generator().manual_seed(3))
    first, second = encoder(LEVELS), encoder(LEVELS)
    assert not torch.equal(first, second), "every call draws anew"
    encoder.generator.manual_seed(3)
    assert torch.equal(encoder(LEVELS), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_with_a_generator_for_each_an_images_spikes_do_not_depend_on_its_batch():
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)

    def coded(*chosen):
        generators = [torch.Generator().manual_seed(10 + i) for i in chosen]
        return RateEncoder(6, generator=generators)(images[list(chosen)])

    together = coded(0, 1, 2, 3, 4)
    assert torch.equal(torch.cat([coded(3, 1), coded(4)], 1), together[:, [3, 1, 4]])
    with pytest.raises(ValueError, match="generator has 2 generators, expected one or 5"):
        RateEncoder(6, generator=[torch.Generator()] * 2)(images)


# Latency


@pytest.mark.parametrize("function", ["linear", "log"])
@pytest.mark.parametrize("T", [1, 2, 3, 4, 8, 10, 16, 25, 33])
def test_latency_coding_of_every_pixel_is_spikingjellys(T, function):
    expected = spikingjellys(encoding.LatencyEncoder(T, function), LEVELS / 255.0, T)
    spikes = LatencyEncoder(T, function)(LEVELS)
    assert torch.equal(spikes, expected) and (spikes.sum(0) == 1).all()


@pytest.mark.parametrize("T", [2, 7, 30])
def test_latency_coding_of_numbers_is_spikingjellys(T):
    x = torch.rand(4, 3, 40, 40)
    assert torch.equal(LatencyEncoder(T)(x), spikingjellys(encoding.LatencyEncoder(T, "linear"), x, T))
    expected = spikingjellys(encoding.LatencyEncoder(T, "log"), x.double(), T)
    assert torch.equal(LatencyEncoder(T, "log")(x), expected.float())


@pytest.mark.parametrize("function", ["linear", "log"])
@pytest.mark.parametrize("T", [1, 5, 200, 1200])
def test_the_brightest_fire_first_and_the_darkest_last_however_long_it_takes(T, function):
    when = LatencyEncoder(T, function)(LEVELS).argmax(0).flatten()
    assert when[255] == 0 and when[0] == T - 1 and (when.diff() <= 0).all()


# Direct


def test_direct_coding_is_the_picture_in_every_step():
    x_seq = DirectEncoder(4)(LEVELS)
    assert torch.equal(x_seq, torch.stack([LEVELS / 255] * 4)) and x_seq.is_contiguous()


# All of them


def encoder_of(coding, T):
    """An encoder that repeats itself."""
    options = {"generator": torch.Generator().manual_seed(0)} if coding == "rate" else {}
    return ENCODERS[coding](T=T, **options)


@every_coding
@pytest.mark.parametrize("T", [1, 4, 11])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (0, 3, 4, 4), (3, 2), (1, 1, 1, 1)])
def test_any_shape_and_length_gives_float32_in_the_unit_interval(coding, T, shape):
    for images in (torch.randint(0, 256, shape, dtype=torch.uint8), torch.rand(shape), torch.rand(shape).half()):
        x_seq = encoder_of(coding, T)(images)
        assert x_seq.shape == (T, *shape) and x_seq.dtype == torch.float32
        assert ((x_seq >= 0) & (x_seq <= 1)).all()
        assert coding == "direct" or ((x_seq == 0) | (x_seq == 1)).all()


@every_coding
def test_pixels_and_their_share_of_255_are_coded_alike(coding):
    assert torch.equal(encoder_of(coding, 9)(LEVELS), encoder_of(coding, 9)(LEVELS / 255))


@every_coding
def test_a_call_leaves_nothing_behind(coding):
    encoder = encoder_of(coding, 6)
    encoder(torch.rand(3, 1, 2, 2))
    if coding == "rate":
        encoder.generator.manual_seed(0)
    assert torch.equal(encoder(LEVELS), encoder_of(coding, 6)(LEVELS))
    assert not list(encoder.buffers()) and not list(encoder.parameters())


@every_coding
@pytest.mark.parametrize("layout", ["channels_last", "strided"])
def test_the_layout_changes_nothing(coding, layout):
    images = torch.rand(2, 3, 8, 6)
    other = images.to(memory_format=torch.channels_last)
    if layout == "strided":
        other = images.repeat_interleave(2, -1)[..., ::2]
    assert torch.equal(encoder_of(coding, 5)(other), encoder_of(coding, 5)(images))


@every_coding
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.tensor([[0.5, 1.01]]), ValueError, r"images has values from 0.5 to 1.01, expected floats in \[0, 1\]"),
        (torch.tensor([[-0.1]]), ValueError, "images has values from -0.1"),
        (torch.tensor([[float("nan")]]), ValueError, "images has values from nan"),
        (torch.zeros(2, 2, dtype=torch.int64), TypeError, "images has dtype int64, expected one of uint8"),
        ([0.5], TypeError, "images is of type list"),
    ],
)
def test_what_is_no_image_is_refused(coding, images, error, message):
    with pytest.raises(error, match=message):
        encoder_of(coding, 3)(images)


@every_coding
def test_a_wrong_length_is_refused(coding):
    with pytest.raises(ValueError, match="T is 0, expected an integer of at least 1"):
        ENCODERS[coding](T=0)
    with pytest.raises(TypeError, match=r"T is 2.5 of type float"):
        ENCODERS[coding](T=2.5)


def test_an_unknown_function_is_refused_with_the_near_one():
    with pytest.raises(ValueError, match=r"function is 'lin', expected one of 'linear', 'log'. Did you mean 'linear'"):
        LatencyEncoder(function="lin")


@pytest.mark.parametrize("encoder", [PhaseEncoder(6), RateEncoder(6), DirectEncoder(6)], ids=str)
def test_the_straight_through_gradient_is_as_if_every_step_were_the_image(encoder):
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    grad = torch.randn(6, 2, 3, 4, 4)
    torch.manual_seed(1)
    x_seq = encoder(images)
    x_seq.backward(grad)
    assert torch.allclose(images.grad, grad.sum(0), atol=1e-6)
    torch.manual_seed(1)
    assert torch.equal(x_seq.detach(), encoder(images.detach())), "what goes forward is the same"


@pytest.mark.parametrize("kind", [PhaseEncoder, RateEncoder])
def test_without_it_the_result_is_cut_from_the_graph(kind):
    assert not kind(straight_through=False)(torch.rand(1, 1, 2, 2, requires_grad=True)).requires_grad
    assert not LatencyEncoder()(torch.rand(1, 1, 2, 2, requires_grad=True)).requires_grad


@pytest.mark.parametrize("coding", ["rate", "direct"])
def test_a_classifier_with_it_is_attacked_on_images(coding):
    net = fastsnn.models.sew_resnet18(width=4).eval()
    clf = fastsnn.Classifier(net, ENCODERS[coding](T=3))
    images, y = torch.rand(2, 3, 32, 32), torch.tensor([1, 2])
    adv = fastsnn.attacks.PGD(clf, eps=8 / 255, alpha=2 / 255, steps=2)(images, y)
    assert 0 < (adv - images).abs().max() <= 8 / 255 and clf(adv).shape == (2, 10)


def test_an_attack_on_images_before_latency_coding_says_that_no_gradient_gets_through():
    clf = fastsnn.Classifier(fastsnn.models.sew_resnet18(width=4).eval(), LatencyEncoder(3))
    with pytest.raises(ValueError, match="do not depend differentiably on x: is there an encoder without"):
        fastsnn.attacks.FGSM(clf, eps=8 / 255)(torch.rand(1, 3, 32, 32), torch.tensor([1]))


def test_attacks_take_samples_for_independent_of_each_other_unless_they_are_drawn_together():
    net = fastsnn.models.sew_resnet18(width=4).eval()
    independent = {coding: are_known(fastsnn.Classifier(net, kind(T=3))) for coding, kind in ENCODERS.items()}
    assert independent == {"phase": True, "rate": False, "latency": True, "direct": True}


# Recorded events


def test_event_frames_only_move_their_axes():
    frames = torch.randint(0, 256, (3, 4, 2, 5, 6), dtype=torch.uint8)
    x_seq = EventFrames(4)(frames)
    assert x_seq.dtype == torch.float32 and x_seq.shape == (4, 3, 2, 5, 6) and x_seq.is_contiguous()
    assert torch.equal(x_seq, torch.stack([frames[:, t] / 255 for t in range(4)]))
    assert torch.equal(EventFrames(4)(frames / 255), x_seq)


def test_event_frames_let_gradients_through():
    frames = torch.rand(2, 3, 2, 4, 4, requires_grad=True)
    grad = torch.randn(3, 2, 2, 4, 4)
    EventFrames(3)(frames).backward(grad)
    assert torch.equal(frames.grad, grad.transpose(0, 1))


@pytest.mark.parametrize("shape", [(3, 5, 2, 6, 6), (3, 2, 6, 6)])
def test_recordings_of_another_length_are_refused(shape):
    with pytest.raises(ValueError, match=r"frames has shape .*, expected \[B, 4, C, H, W\]"):
        EventFrames(4)(torch.zeros(shape))


def test_frames_that_leave_the_unit_interval_are_refused():
    with pytest.raises(ValueError, match="frames has values from 0 to 2"):
        EventFrames(1)(torch.tensor([0.0, 2.0]).view(1, 1, 2, 1, 1))
