"""EOT and BPDA, on cases worked out by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastsnn
from fastsnn.attacks import BPDA, EOT, Strongest, apgd, fgsm, pgd, square
from fastsnn.attacks.input_gradient import input_gradient

from .networks import tiny


class Swinging(nn.Module):
    """Logits (s x, 0) with s = 2, -1, 2, -1, ... from call to call."""

    def __init__(self):
        super().__init__()
        self.s = itertools.cycle((2.0, -1.0))

    def forward(self, x):
        x = x.flatten(1)
        return torch.cat([next(self.s) * x, 0 * x], 1)


def test_eot_climbs_the_mean_of_the_losses():
    # d loss / dx = -s (1 - sigmoid(s x)) for class 0. At x = 0.5: s = 2 gives -0.5379, s = -1 gives +0.6225, whose mean
    # is +0.0423; the mean of the logits has s = 0.5, and -0.2189. So a pass alone and the mean logits point down.
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    with input_gradient(EOT(Swinging(), samples=2)) as gradient:
        g, loss, logits = gradient.look(x, y)
    assert g.item() == pytest.approx(0.0423, abs=1e-4)
    assert loss.item() == pytest.approx((0.3133 + 0.9741) / 2, abs=1e-4)
    assert logits.tolist() == [[0.25, 0.0]]
    assert fgsm(EOT(Swinging(), samples=2), x, y, eps=0.1).item() == pytest.approx(0.6)
    assert fgsm(Swinging(), x, y, eps=0.1).item() == pytest.approx(0.4)


def rate(seed=3):
    clf = tiny()
    return fastsnn.Classifier(clf.net, fastsnn.nn.RateEncoder(4, generator=torch.Generator().manual_seed(seed))).eval()


def test_eot_of_a_rate_code_is_the_mean_over_its_draws():
    clf, images, y = rate(), torch.rand(3, 3, 16, 16), torch.arange(3)
    with input_gradient(EOT(clf, samples=3), engine=None) as gradient:
        got = gradient(images, y)
    clf, total = rate(), 0
    for _ in range(3):
        x = images.clone().requires_grad_()
        total = total + torch.autograd.grad(F.cross_entropy(clf(x), y, reduction="sum"), x)[0]
    torch.testing.assert_close(got, total / 3)


def test_one_sample_changes_nothing():
    clf, images = tiny(), torch.rand(3, 3, 16, 16)
    y, how = clf(images).argmax(1), {"eps": 0.05, "alpha": 0.02, "steps": 3, "random_start": False}
    assert torch.equal(pgd(EOT(clf, samples=1), images, y, **how), pgd(clf, images, y, **how))


def test_an_attack_through_eot_stays_in_the_ball_and_leaves_the_network_as_it_was():
    clf, images, y = rate(), torch.rand(3, 3, 16, 16), torch.arange(3)
    clf.train()
    before = {name: value.clone() for name, value in clf.state_dict().items()}
    adv = apgd(EOT(clf, samples=2), images, y, eps=0.1, steps=2, surrogate="assg")
    assert ((adv.double() - images.double()).abs() <= torch.tensor(0.1).double()).all()
    assert clf.training and all(torch.equal(before[name], value) for name, value in clf.state_dict().items())
    assert all(parameter.requires_grad for parameter in clf.parameters())


class Steps(nn.Module):
    """Three levels."""

    def forward(self, x):
        return (2 * x).round() / 2


class Weighted(nn.Module):
    """Logits (w . x, 0) of images of two pixels, or of the sum over steps with weights of their own."""

    def __init__(self, *weights):
        super().__init__()
        self.register_buffer("w", torch.tensor(weights))

    def forward(self, x):
        first = (x.flatten(-3) * (self.w if x.dim() == 4 else self.w[:, None])).sum(-1)
        first = first if x.dim() == 4 else first.sum(0)
        return torch.stack([first, 0 * first], 1)


def test_bpda_passes_the_gradient_by_a_quantiser():
    x, y = torch.tensor([[[[0.3, 0.9]]]]), torch.tensor([0])
    network = nn.Sequential(BPDA(Steps()), Weighted(1.0, -2.0))
    with input_gradient(network) as gradient:
        g, _, logits = gradient.look(x, y)
    assert logits.tolist() == [[0.5 * 1 - 1.0 * 2, 0.0]]
    # -w (1 - sigmoid(-1.5)) = -w 0.8176
    torch.testing.assert_close(g, torch.tensor([[[[-0.8176, 1.6351]]]]), rtol=0, atol=1e-4)
    plain = nn.Sequential(Steps(), Weighted(1.0, -2.0))
    assert torch.equal(fgsm(plain, x, y, eps=0.1), x)  # the quantiser's own gradient is zero
    torch.testing.assert_close(fgsm(network, x, y, eps=0.1), torch.tensor([[[[0.2, 1.0]]]]))


def test_bpda_adds_an_encoders_steps_up():
    x, y = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([0])
    clf = fastsnn.Classifier(Weighted([1.0, 2.0], [4.0, -8.0]), BPDA(fastsnn.nn.LatencyEncoder(2)))
    with input_gradient(clf) as gradient:
        g, _, logits = gradient.look(x, y)
    assert logits.tolist() == [[1.0 - 8.0, 0.0]]  # pixel 1 fires at step 0, pixel 0 at the last
    torch.testing.assert_close(g, -torch.tensor([[[[5.0, -6.0]]]]) / (1 + torch.tensor(-7.0).exp()))
    with pytest.raises(ValueError, match="depend differentiably"):
        fgsm(fastsnn.Classifier(Weighted([1.0, 2.0], [4.0, -8.0]), fastsnn.nn.LatencyEncoder(2)), x, y, eps=0.1)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="samples is 0"):
        EOT(tiny(), samples=0)
    for wrap in (EOT, BPDA):
        with pytest.raises(TypeError, match="Module"):
            wrap(lambda x: x)
    with pytest.raises(ValueError, match=r"part returned shape \[1, 2\]"):
        fgsm(BPDA(nn.Flatten()), torch.rand(1, 2, 1, 1), torch.tensor([0]), eps=0.1)


@pytest.mark.parametrize(("attack", "how"), [(apgd, {"steps": 3}), (square, {"n_queries": 12})])
def test_images_with_generators_of_their_own_stay_in_the_batch(attack, how):
    """One image is wrong from the start and others are fooled on the way, but the encoder's list holds one for each."""
    clf = tiny()
    generators = [torch.Generator().manual_seed(i) for i in range(8)]
    coded = fastsnn.Classifier(clf.net, fastsnn.nn.RateEncoder(4, generator=generators)).eval()
    images = torch.rand(8, 3, 16, 16)
    with torch.no_grad():
        y = coded(images).argmax(1)
    y[0] = (y[0] + 1) % 10
    for i, one in enumerate(generators):
        one.manual_seed(i)  # so that the attack's first look sees the same spikes
    adv = attack(coded, images, y, eps=1.0, generator=torch.Generator().manual_seed(0), **how)
    assert torch.equal(adv[0], images[0]) and (adv[1:] != images[1:]).any()
    with pytest.raises(ValueError, match="a RateEncoder with a generator for each image"):
        Strongest(coded, eps=0.3)(images, y)
