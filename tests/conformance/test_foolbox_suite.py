"""Our attacks as attacks of foolbox: what foolbox's own suite asks of an attack, and that suite itself.

The suite is not in foolbox's packages: FOOLBOX_TESTS names the folder `tests` of a checkout of it (release 3.3.4).
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest
import torch

from fastsnn import attacks

from ..attacks.networks import plain
from .conftest import library

HOW = {"steps": 20}
# name: attack, its settings, a budget in foolbox's suite, whether it can be led to a class
OURS = {
    "fgsm": (attacks.fgsm, {}, 1.0, True),
    "fgsm-l2": (attacks.fgsm, {"norm": "l2"}, 100.0, True),
    "fgsm-l1": (attacks.fgsm, {"norm": "l1"}, 5000.0, True),
    "pgd": (attacks.pgd, {"alpha": 0.1, **HOW}, 1.0, True),
    "pgd-l2": (attacks.pgd, {"alpha": 5.0, "norm": "l2", **HOW}, 50.0, True),
    "pgd-l1": (attacks.pgd, {"alpha": 500.0, "norm": "l1", **HOW}, 5000.0, True),
    "mim": (attacks.mim, {"alpha": 0.1, **HOW}, 1.0, True),
    "apgd": (attacks.apgd, HOW, 1.0, False),
    "apgd-dlr": (attacks.apgd, {"loss": "dlr", **HOW}, 1.0, False),
    "apgd-l2": (attacks.apgd, {"norm": "l2", **HOW}, 50.0, False),
    "sapgd": (attacks.sapgd, {"surrogate": None, **HOW}, 1.0, False),
    "square": (attacks.square, {"n_queries": 20}, 1.0, False),
}
TARGETED = [name for name, (*_, targeted) in OURS.items() if targeted]


def wrapped(name):
    """Return one of our attacks as foolbox's kind of attack."""
    foolbox = library("foolbox")
    attack, how, _, can_be_led = OURS[name]
    distance = getattr(foolbox.distances, how.get("norm", "linf"))

    class Ours(foolbox.attacks.base.FixedEpsilonAttack):
        def __init__(self):
            self.settings = how

        @property
        def distance(self):
            return distance

        def run(self, model, inputs, criterion, *, epsilon, **_):
            inputs, restore = foolbox.attacks.base.ep.astensor_(inputs)
            criterion = foolbox.attacks.base.get_criterion(criterion)
            targeted = isinstance(criterion, foolbox.criteria.TargetedMisclassification)
            labels = (criterion.target_classes if targeted else criterion.labels).raw
            led = {"targeted": targeted} if can_be_led else {}
            return restore(type(inputs)(attack(model, inputs.raw, labels, eps=float(epsilon), **how, **led)))

    return Ours()


@pytest.fixture
def model():
    """foolbox's view of a network, images and the right labels."""
    network, images = plain(size=16).requires_grad_(False), torch.rand(8, 3, 16, 16)
    with torch.no_grad():
        y = network(images).argmax(1)
    return library("foolbox").PyTorchModel(network, bounds=(0, 1)), images, y


@pytest.mark.parametrize("name", OURS)
def test_an_attack_lowers_accuracy_and_says_so(model, name):
    """One budget gives three tensors, a list of budgets three lists; success is what the model then says."""
    foolbox, (fmodel, images, y) = library("foolbox"), model
    raw, clipped, success = wrapped(name)(fmodel, images, y, epsilons=OURS[name][2])
    assert raw.shape == clipped.shape == images.shape and success.shape == (8,) and success.any()
    assert torch.equal(success, fmodel(clipped).argmax(1) != y)
    assert foolbox.accuracy(fmodel, clipped, y) < 1
    assert torch.allclose(raw, clipped, rtol=0, atol=2e-7), "ours keep to the budget: clipping only rounds"
    raws, _, several = wrapped(name)(fmodel, images, y, epsilons=[0.0, OURS[name][2]])
    assert torch.equal(raws[0], images) and several.shape == (2, 8) and not several[0].any()


@pytest.mark.parametrize("name", TARGETED)
def test_a_targeted_attack_reaches_its_classes_more_often_than_before(model, name):
    foolbox, (fmodel, images, y) = library("foolbox"), model
    criterion = foolbox.criteria.TargetedMisclassification((y + 1) % 5)
    assert not criterion(images, fmodel(images)).any()
    _, clipped, success = wrapped(name)(fmodel, images, criterion, epsilons=OURS[name][2])
    assert success.any() and torch.equal(success, criterion(clipped, fmodel(clipped)))


@pytest.fixture
def suite(monkeypatch):
    """foolbox's test_attacks, and its model that averages pixels with its images."""
    folder = os.environ.get("FOOLBOX_TESTS")
    if not folder or not Path(folder, "test_attacks.py").is_file():
        pytest.skip("needs foolbox's own tests: FOOLBOX_TESTS is not the folder `tests` of a checkout of foolbox")
    library("foolbox")
    monkeypatch.syspath_prepend(folder)
    for name in ("conftest", "test_attacks"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    theirs = importlib.import_module("conftest")
    tests = importlib.import_module("test_attacks")
    yield tests, theirs.ModeAndDataAndDescription(theirs.pytorch_simple_model(), False, True)
    for name in ("conftest", "test_attacks"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", OURS)
def test_the_untargeted_test_of_foolbox_passes(suite, name):
    tests, model = suite
    target = tests.AttackTestTarget(wrapped(name), OURS[name][2], uses_grad=True, stochastic_attack=name == "square")
    tests.test_untargeted_attacks(model, target)


@pytest.mark.parametrize("name", TARGETED)
def test_the_targeted_test_of_foolbox_passes(suite, name):
    tests, model = suite
    tests.test_targeted_attacks(model, tests.AttackTestTarget(wrapped(name), OURS[name][2], uses_grad=True))


def test_the_suite_refuses_an_attack_that_does_nothing(suite):
    """So that the two tests above can fail: what they assert is in foolbox's own functions."""
    tests, model = suite
    for ask in (tests.test_untargeted_attacks, tests.test_targeted_attacks):
        with pytest.raises(AssertionError):
            ask(model, tests.AttackTestTarget(wrapped("pgd"), 0.0, uses_grad=True))
