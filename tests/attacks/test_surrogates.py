"""The attacker's surrogate, against networks that were built with it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn.attacks import fgsm, mim, pgd
from fastsnn.attacks.surrogates import shape_and_alpha

from .networks import plain, tiny

HOW = {"eps": 0.1, "alpha": 0.03, "steps": 3}


def neurons_of(network):
    return [module.neuron for module in network.modules() if isinstance(module, fastsnn.nn.IFNode)]


def built_with(clf, shape, alpha):
    other = fastsnn.models.sew_resnet18("avg", width=4, surrogate=shape, alpha=alpha)
    other.load_state_dict(clf.net.state_dict())
    return fastsnn.Classifier(other.eval(), clf.encoder)


@pytest.mark.parametrize("engine", ["auto", None])
@pytest.mark.parametrize(("shape", "alpha"), [("triangle", 0.5), ("sigmoid", 4.0), ("rectangle", 1.0)])
def test_the_attack_is_that_on_a_network_built_with_the_surrogate(shape, alpha, engine):
    clf, images, y = tiny(), torch.rand(4, 3, 16, 16), torch.arange(4)
    other, before, text = built_with(clf, shape, alpha), neurons_of(clf), f"{shape}:{alpha}"
    assert torch.equal(clf(images), other(images))
    how = HOW | {"random_start": False, "engine": engine}
    adv = pgd(clf, images, y, surrogate=text, **how)
    assert torch.equal(adv, pgd(other, images, y, **how))
    assert not torch.equal(adv, pgd(clf, images, y, **how))
    assert torch.equal(fgsm(clf, images, y, eps=0.1, surrogate=text), fgsm(other, images, y, eps=0.1))
    assert torch.equal(mim(clf, images, y, surrogate=text, **HOW), mim(other, images, y, **HOW))
    assert neurons_of(clf) == before


def test_the_networks_own_surrogate_is_back_also_after_an_exception():
    clf, before = tiny(), neurons_of(tiny())
    seen = []

    def explode(module, inputs):
        seen.append(clf.net.sn1.neuron.surrogate)
        raise KeyboardInterrupt

    clf.net.fc.register_forward_pre_hook(explode)
    with pytest.raises(KeyboardInterrupt):
        pgd(clf, torch.rand(2, 3, 16, 16), torch.arange(2), surrogate="triangle:1", **HOW)
    assert seen == ["triangle"]
    assert neurons_of(clf) == before


@pytest.mark.parametrize("network", [plain(), lambda x: x.flatten(1)[:, :5], nn.Flatten()])
def test_a_network_without_spiking_neurons_is_refused(network):
    with pytest.raises(ValueError, match="no neurons of fastsnn"):
        fgsm(network, torch.rand(2, 3, 8, 8), torch.arange(2), eps=0.1, surrogate="atan:2")


def test_a_surrogate_is_a_shape_and_its_alpha():
    assert shape_and_alpha("surrogate", "sigmoid:0.5") == ("sigmoid", 0.5)
    for wrong, message in (("atn:2", "Did you mean 'atan'"), ("atan", "as in 'atan:2'"), ("atan:0", "above 0")):
        with pytest.raises(ValueError, match="surrogate") as caught:
            shape_and_alpha("surrogate", wrong)
        assert message in str(caught.value)
