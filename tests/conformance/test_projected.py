"""FGSM, PGD and MIM against torchattacks and foolbox: the same bits, but where rounding leaves the ball."""

from __future__ import annotations

import pytest
import torch

from fastsnn.attacks import FGSM, MIM, PGD

from .conftest import library

HOW = {"eps": 8 / 255, "alpha": 2 / 255, "steps": 5}
P = {"linf": torch.inf, "l2": 2, "l1": 1}


def assert_same_but_inwards(ours, theirs, x, eps, norm="linf"):
    """Compare bits where theirs is in the ball; elsewhere ours may be one float nearer."""
    if norm == "linf":
        outside = (theirs.double() - x.double()).abs() > torch.tensor(eps).double()
        assert torch.equal(ours, torch.where(outside, torch.nextafter(theirs, x), theirs))
    else:
        sizes = torch.linalg.vector_norm((theirs.double() - x.double()).flatten(1), P[norm], dim=1)
        inside = sizes <= torch.tensor(eps).double() * (1 - 1e-14)
        assert torch.equal(ours[inside], theirs[inside])
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)
    assert not torch.equal(ours, x)


def by_torchattacks(name, network, x, y, targeted, **how):
    attack = getattr(library("torchattacks"), name)(network, **how)
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return attack(x, y)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("eps", [2 / 255, 8 / 255, 0.3])
def test_fgsm_pgd_and_mim_are_those_of_torchattacks(network, images, y, eps, targeted):
    y = (y + 1) % 5 if targeted else y
    how = HOW | {"eps": eps}
    ours = FGSM(network, eps=eps, targeted=targeted)(images, y)
    assert_same_but_inwards(ours, by_torchattacks("FGSM", network, images, y, targeted, eps=eps), images, eps)
    theirs = by_torchattacks("PGD", network, images, y, targeted, random_start=False, **how)
    ours = PGD(network, random_start=False, targeted=targeted, **how)(images, y)
    assert_same_but_inwards(ours, theirs, images, eps)
    for decay in (0.9, 1.0):
        theirs = by_torchattacks("MIFGSM", network, images, y, targeted, decay=decay, **how)
        assert_same_but_inwards(MIM(network, decay=decay, targeted=targeted, **how)(images, y), theirs, images, eps)


def by_foolbox(name, network, x, y, eps, targeted, **how):
    foolbox = library("foolbox")
    criterion = (foolbox.criteria.TargetedMisclassification if targeted else foolbox.criteria.Misclassification)(y)
    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    attack = getattr(foolbox.attacks, name)(**how)
    return attack.run(model, x, criterion, epsilon=eps)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(
    ("norm", "eps", "alpha", "name"),
    [("linf", 8 / 255, 2 / 255, "Linf"), ("l2", 0.5, 0.2, "L2"), ("l2", 30.0, 4.0, "L2"), ("l1", 9.0, 4.0, "L1")],
)
def test_pgd_is_that_of_foolbox_in_every_norm(network, images, y, norm, eps, alpha, name, targeted):
    y = (y + 1) % 5 if targeted else y
    how = {"abs_stepsize": alpha, "steps": 5, "random_start": False}
    theirs = by_foolbox(f"{name}ProjectedGradientDescentAttack", network, images, y, eps, targeted, **how)
    how = {"engine": None} if norm != "linf" else {}  # whose gradients differ in the last bit, which a sign hides
    how |= {"eps": eps, "alpha": alpha, "steps": 5, "random_start": False, "norm": norm, "targeted": targeted}
    ours = PGD(network, **how)(images, y)
    assert_same_but_inwards(ours, theirs, images, eps, norm)


@pytest.mark.parametrize(("norm", "eps", "name"), [("linf", 8 / 255, "Linf"), ("l2", 0.5, "L2"), ("l1", 9.0, "L1")])
def test_fgsm_is_that_of_foolbox_in_every_norm(network, images, y, norm, eps, name):
    theirs = by_foolbox(f"{name}FastGradientAttack", network, images, y, eps, False)
    ours = FGSM(network, eps=eps, norm=norm, engine=None)(images, y)
    if norm == "linf":  # foolbox's projection may stop short of eps by rounding
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-7)
    else:
        assert_same_but_inwards(ours, theirs, images, eps, norm)


def test_pgd_in_l2_is_that_of_torchattacks_up_to_rounding(network, images, y):
    how = {"eps": 0.5, "alpha": 0.2, "steps": 4, "random_start": False}
    theirs = by_torchattacks("PGDL2", network, images, y, False, **how)
    assert torch.allclose(PGD(network, norm="l2", **how)(images, y), theirs, rtol=0, atol=1e-5)
