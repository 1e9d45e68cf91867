"""A training that is saved and gone on with has the bits of one that was not; what it does to images."""

import json

import pytest
import torch
from torch import nn

from fastsnn import data, models
from fastsnn.nn import IFNode, PhaseEncoder, RateEncoder, precision, spiking_layer
from fastsnn.training import Trainer, defence_of, neurons_for


@pytest.fixture(scope="module")
def digits():
    some = data.load("digits", "train")
    return some.images[:40], some.labels[:40]


def trainer(digits, **options):
    torch.manual_seed(0)
    net = neurons_for(models.sew_resnet18(width=4), options.pop("neurons", "none"))
    how = {"epochs": 4, "batch_size": 16, "lr": 3e-3, "encode": PhaseEncoder(3), "seed": 1} | options
    return Trainer(net, *digits, **how)


def rate():
    return RateEncoder(3, generator=torch.Generator().manual_seed(5))


VARIANTS = {
    "the paper's": dict,
    "cosine": lambda: {"schedule": "cosine"},
    "sgd and flips": lambda: {"optimizer": "sgd", "flips": True},
    "rate coded": lambda: {"encode": rate()},
    "bf16": lambda: {"precision": "bf16"},
    "mixed rat": lambda: {"defence": defence_of("defence", "mixed_rat")},
    "learned neurons": lambda: {"defence": defence_of("defence", "hire:learned=1"), "neurons": "hire:learned=1"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_going_on_from_a_saved_state_gives_the_same_bits(digits, variant):
    whole, broken = trainer(digits, **VARIANTS[variant]()), trainer(digits, **VARIANTS[variant]())
    for _ in range(4):
        whole.epoch()
    for _ in range(2):
        broken.epoch()
    tensors, numbers = broken.state()
    saved = {name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(numbers))
    broken.epoch()  # what comes after does not count
    other = trainer(digits, **VARIANTS[variant]())
    other.load_state(*saved)
    while len(other.losses) < 4:
        other.epoch()
    assert other.losses == whole.losses
    expected, found = whole.state()[0], other.state()[0]
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_bf16_rounds_products_and_leaves_weights_in_float32(digits):
    trained = {precision: trainer(digits, epochs=1, precision=precision) for precision in ("fp32", "bf16")}
    for one in trained.values():
        one.epoch()
    exact, rounded = (one.net.state_dict() for one in trained.values())
    assert any(not torch.equal(exact[name], rounded[name]) for name in exact)
    tensors = [*rounded.values(), *(t for state in trained["bf16"].optimizer.state.values() for t in state.values())]
    assert {tensor.dtype for tensor in tensors} == {torch.float32, torch.int64}


def test_what_bf16_rounds_is_what_a_product_takes_and_gives():
    draws = torch.Generator().manual_seed(0)
    x, conv, neuron = torch.rand(3, 2, 4, 6, 6, generator=draws).round(), nn.Conv2d(4, 5, 3, bias=False), IFNode()
    with precision("bf16"):
        current, spikes, stem = (
            spiking_layer(conv, None, None, x),
            spiking_layer(conv, None, neuron, x),
            spiking_layer(conv, None, None, x, spikes=False),
        )
    frames, weight = x.flatten(0, 1).bfloat16(), conv.weight.detach().bfloat16()
    expected = torch.nn.functional.conv2d(frames, weight).unflatten(0, (3, 2))
    assert torch.equal(current, expected) and current.dtype == torch.bfloat16
    assert torch.equal(spikes, neuron(expected.float()).bfloat16()), "membranes are float32"
    assert stem.dtype == torch.float32


def test_flips_turn_half_of_the_images_left_to_right(digits):
    one = trainer(digits, flips=True)
    images = torch.arange(200 * 3 * 2 * 4).view(200, 3, 2, 4)
    flipped = one._flipped(images)
    turned = (flipped == images.flip(-1)).flatten(1).all(1)
    assert ((flipped == images).flatten(1).all(1) ^ turned).all()
    assert 70 < turned.sum() < 130


def test_without_flips_images_are_left_alone_and_the_order_is_the_same(digits):
    encode, seen = PhaseEncoder(3), {False: [], True: []}

    def watched(images):
        seen[flips].append(encode(images))
        return seen[flips][-1]

    for flips in (False, True):
        trainer(digits, flips=flips, encode=watched).epoch()
    seen = {flips: torch.cat(batches, 1) for flips, batches in seen.items()}
    assert not torch.equal(seen[False], seen[True])
    assert torch.equal(seen[False].sum((0, 4)), seen[True].sum((0, 4))), "the same rows, from either side"


def test_sgd_has_momentum(digits):
    assert trainer(digits, optimizer="sgd").optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize(("wrong", "message"), [({"optimizer": "adan"}, "Did you mean 'adam'"), ({"lr": -1}, "lr is")])
def test_bad_settings_are_refused(digits, wrong, message):
    with pytest.raises(ValueError, match=message):
        trainer(digits, **wrong)
