"""Targets and momentum, against plain loops."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from fastsnn.attacks import FGSM, MIM, PGD, fgsm, mim, pgd

from .networks import plain, tiny

HOW = {"eps": 0.1, "alpha": 0.03, "steps": 5}


def inwards(adv, x, eps):
    outside = (adv.double() - x.double()).abs() > torch.tensor(eps).double()
    return torch.where(outside, torch.nextafter(adv, x), adv)


def plain_mim(network, x, y, eps, alpha, steps, decay, sign):
    adv, momentum = x.clone(), torch.zeros_like(x)
    for _ in range(steps):
        leaf = adv.clone().requires_grad_()
        (g,) = torch.autograd.grad(sign * cross_entropy(network(leaf), y), leaf)
        momentum = momentum * decay + g / g.abs().mean((1, 2, 3), keepdim=True)
        adv = (x + (adv + alpha * momentum.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return inwards(adv, x, eps)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("make", [plain, tiny])
def test_mim_is_the_plain_loop_bit_for_bit(make, targeted, decay):
    network, x, y = (
        make().requires_grad_(False),
        torch.rand(4, 3, *((16, 16) if make is tiny else (8, 8))),
        torch.arange(4),
    )
    expected = plain_mim(network, x, y, **HOW, decay=decay, sign=-1 if targeted else 1)
    adv = mim(network, x, y, **HOW, decay=decay, targeted=targeted)
    assert torch.equal(adv, expected)
    assert not torch.equal(adv, x)


def test_a_gradient_of_zero_adds_nothing_to_the_momentum():
    calls = []

    def network(x):  # the gradient is 1, then 0 for the first sample
        calls.append(1)
        slope = torch.tensor([1.0 if len(calls) == 1 else 0.0, 1.0]).view(2, 1)
        ahead = (slope * x.flatten(1)).sum(1)
        return torch.stack([ahead, 0 * ahead], 1)

    x, y = torch.full((2, 1, 1, 2), 0.5), torch.tensor([1, 1])
    adv = mim(network, x, y, eps=0.3, alpha=0.1, steps=3)
    assert torch.allclose(adv, torch.full_like(x, 0.8))


@pytest.mark.parametrize("attack", [fgsm, pgd, mim])
def test_targeted_attacks_lead_to_the_class_that_is_named(attack):
    net, x = plain(), torch.rand(40, 3, 8, 8)
    y = (net(x).argmax(1) + 1) % 5
    how = {} if attack is fgsm else {"alpha": 0.05, "steps": 10}
    how |= {"random_start": False} if attack is pgd else {}
    adv = attack(net, x, y, eps=0.4, targeted=True, **how)
    assert (net(adv).argmax(1) == y).float().mean() > (0.5 if attack is fgsm else 0.9)


def test_of_several_restarts_the_first_that_hits_the_target_is_kept():
    net, x = plain(), torch.rand(16, 3, 8, 8)
    y = (net(x).argmax(1) + 1) % 5
    how = {"eps": 0.04, "alpha": 0.01, "steps": 1, "targeted": True}
    generator = torch.Generator().manual_seed(0)
    singles = [pgd(net, x, y, generator=generator, **how) for _ in range(3)]
    adv = pgd(net, x, y, generator=torch.Generator().manual_seed(0), restarts=3, **how)
    hits = [net(one).argmax(1) == y for one in singles]
    losses = torch.stack([cross_entropy(net(one), y, reduction="none") for one in singles])
    for i in range(16):
        hit = next((k for k in range(3) if hits[k][i]), int(losses[:, i].argmin()))
        assert torch.equal(adv[i], singles[hit][i])
    assert any(hit.any() for hit in hits) and not all(hit.all() for hit in hits)


def test_classes_are_the_functions_with_their_settings_held():
    net, x, y = plain(), torch.rand(4, 3, 8, 8), torch.arange(4)
    settings = {"norm": "l2", "targeted": True}
    assert torch.equal(FGSM(net, eps=0.5, **settings)(x, y), fgsm(net, x, y, eps=0.5, **settings))
    assert torch.equal(MIM(net, **HOW, decay=0.5, **settings)(x, y), mim(net, x, y, **HOW, decay=0.5, **settings))
    expected = pgd(net, x, y, random_start=False, **HOW, **settings)
    assert torch.equal(PGD(net, random_start=False, **HOW, **settings)(x, y), expected)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"decay": -1}, ValueError, "decay is -1"),
        ({"targeted": torch.tensor([1, 2])}, TypeError, "the classes to reach are given as y"),
        ({"alpha": 0}, ValueError, "alpha is 0 with steps=5"),
    ],
)
def test_bad_input_is_refused_by_name(wrong, error, message):
    with pytest.raises(error) as caught:
        mim(plain(), torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), **HOW | wrong)
    assert message in str(caught.value)
