"""APGD against AutoAttack's own code and torchattacks', from the same random starts: the same points of the input."""

from __future__ import annotations

import pytest
import torch

from fastsnn.attacks import APGD, APGDT

from .conftest import library
from .test_projected import P

SEED, STEPS = 3, 25
NORMS = [("linf", "Linf"), ("l2", "L2")]


@pytest.fixture
def eps(norm, network):
    """A budget that fools some of the images."""
    smooth = isinstance(network, torch.nn.Sequential)
    return (1.5 / 255 if smooth else 4 / 255) if norm == "linf" else 0.15 if smooth else 0.5


def assert_same(ours, theirs, x, eps, norm, bits=True):
    """Compare bits where theirs is in the ball; values outside are moved one float, in l2 all of a sample's."""
    delta = theirs.double() - x.double()
    budget = torch.tensor(eps).double()
    if norm == "linf":
        outside = delta.abs() > budget
    else:
        outside = (delta.square().sum((1, 2, 3), keepdim=True).sqrt() > budget * (1 - 1e-14)).expand(x.shape)
    assert not bits or torch.equal(ours[~outside], theirs[~outside])
    assert torch.allclose(ours, theirs, rtol=0, atol=2e-7)
    moved = (ours != x).flatten(1).any(1)
    assert torch.equal(moved, (theirs != x).flatten(1).any(1))
    assert 0 < moved.sum() < len(x), "a test should see both outcomes"
    sizes = torch.linalg.vector_norm((ours.double() - x.double()).flatten(1), P[norm], dim=1)
    assert (sizes <= budget).all()


def ours(attack, network, images, y, steps=STEPS, **how):
    """Attack by the layers themselves, whose gradients have torch's order of sums."""
    generator = torch.Generator().manual_seed(SEED)
    return attack(network, steps=steps, generator=generator, engine=None, **how)(images, y)


@pytest.mark.parametrize(("norm", "name"), NORMS)
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_is_that_of_autoattack(network, images, y, loss, norm, name, eps):
    base = library("pyautoattack.autopgd_base")
    attack = base.APGDAttack(network, n_iter=STEPS, norm=name, eps=eps, seed=SEED, loss=loss, device="cpu")
    theirs = attack.perturb(images, y)
    assert_same(ours(APGD, network, images, y, eps=eps, norm=norm, loss=loss), theirs, images, eps, norm)


@pytest.mark.parametrize("norm", ["linf"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_is_that_of_torchattacks(network, images, y, loss, norm, eps):
    """Up to a float: it draws the same start, but rounds it after another operation."""
    attack = library("torchattacks").APGD(network, eps=eps, steps=STEPS, seed=SEED, loss=loss)
    theirs = attack(images, y)
    found = ours(APGD, network, images, y, eps=eps, norm=norm, loss=loss)
    assert_same(found, theirs, images, eps, norm, bits=False)


@pytest.mark.parametrize(("norm", "name"), NORMS)
def test_apgdt_is_that_of_autoattack(network, images, y, norm, name, eps):
    """One image at a time: AutoAttack's starts depend on how many of the batch are left."""
    base = library("pyautoattack.autopgd_base")
    how = {"n_iter": 8, "norm": name, "eps": eps, "seed": SEED, "n_target_classes": 3, "device": "cpu"}
    pairs = [(images[i : i + 1], y[i : i + 1]) for i in range(len(y))]
    theirs = torch.cat([base.APGDAttack_targeted(network, **how).perturb(*pair) for pair in pairs])
    found = [ours(APGDT, network, *pair, steps=8, eps=eps, norm=norm, targets=3) for pair in pairs]
    assert_same(torch.cat(found), theirs, images, eps, norm)
