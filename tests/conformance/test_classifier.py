"""Our Classifier goes through the calls of attack libraries as any torch module, and is left as it was."""

from __future__ import annotations

import numpy
import pytest
import torch

from ..attacks.networks import tiny
from .conftest import library

EPS = 64 / 255


@pytest.fixture
def clf():
    return tiny()


@pytest.fixture
def state(clf):
    """Check afterwards that parameters and statistics are what they were, and that no neuron kept a state."""
    before = {name: tensor.clone() for name, tensor in clf.state_dict().items()}
    yield
    after = clf.state_dict()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name


@pytest.fixture
def labelled(clf):
    images = torch.rand(8, 3, 16, 16)
    with torch.no_grad():
        return images, clf(images).argmax(1)


def assert_attacked(clf, adv, images, y):
    """Check that the attack kept to its budget, and fooled the network."""
    assert ((adv - images).abs() <= EPS + 1e-6).all() and adv.min() >= 0 and adv.max() <= 1
    with torch.no_grad():
        assert (clf(adv).argmax(1) != y).any()


@pytest.mark.parametrize("name", ["PGD", "APGD", "APGDT"])
def test_torchattacks(clf, state, labelled, name):
    images, y = labelled
    attack = getattr(library("torchattacks"), name)(clf, eps=EPS, steps=5)
    assert_attacked(clf, attack(images, y), images, y)


def test_foolbox(clf, state, labelled):
    foolbox = library("foolbox")
    images, y = labelled
    attack = foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=5)
    _, clipped, success = attack(foolbox.PyTorchModel(clf, bounds=(0, 1)), images, y, epsilons=[EPS / 2, EPS])
    assert success.shape == (2, 8) and len(clipped) == 2
    assert_attacked(clf, clipped[1], images, y)


def test_the_adversarial_robustness_toolbox(clf, state, labelled):
    estimators, evasion = library("art.estimators.classification"), library("art.attacks.evasion")
    images, y = labelled
    estimator = estimators.PyTorchClassifier(
        clf,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=(3, 16, 16),
        nb_classes=10,
        clip_values=(0, 1),
        device_type="cpu",
    )
    logits = estimator.predict(images.numpy())
    assert numpy.array_equal(logits.argmax(1), y.numpy())
    attack = evasion.ProjectedGradientDescentPyTorch(estimator, eps=EPS, eps_step=EPS / 4, max_iter=5, verbose=False)
    assert_attacked(clf, torch.from_numpy(attack.generate(images.numpy(), y.numpy())), images, y)


def test_autoattack(clf, state, labelled):
    module = library("pyautoattack.autoattack")
    images, y = labelled
    attack = module.AutoAttack(clf, attacks=["apgd-ce", "apgd-t", "square"], version="custom", eps=EPS, seed=0)
    attack.apgd.n_iter = attack.apgd_targeted.n_iter = 5
    attack.apgd.n_restarts, attack.apgd_targeted.n_target_classes, attack.square.n_queries = 1, 3, 5
    adv, _ = attack.run_standard_evaluation(images, y, batch_size=8)
    assert_attacked(clf, adv, images, y)
