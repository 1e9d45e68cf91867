"""A training that is saved and gone on with has the bits of one that was not; what it does to images."""

import json

import pytest
import torch

from fastsnn import data, models
from fastsnn.nn import PhaseEncoder, RateEncoder
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
