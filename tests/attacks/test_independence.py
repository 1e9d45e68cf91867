from __future__ import annotations

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn.attacks.independence import are_independent, in_one_order
from fastsnn.attacks.input_gradient import input_gradient

from ..spikingjelly_networks import batch
from .networks import settled


def gradient_of(net, x, y, **how):
    with input_gradient(net, **how) as gradient:
        assert gradient.independent
        return gradient(x, y)


@pytest.mark.parametrize("precision", ["fp32", "fast"])
@pytest.mark.parametrize("pool", ["max", "avg"])
@pytest.mark.parametrize(("depth", "width"), [(18, 8), (18, 64), (50, 8), (50, 16)])
def test_a_samples_gradient_has_the_same_bits_in_any_batch(depth, width, pool, precision):
    net, (x, y) = settled(depth, pool, width, batches=2), batch(T=10, B=12)
    whole = gradient_of(net, x, y, precision=precision)
    for chosen in ([0], [11], [0, 1], [9, 3, 11, 0, 5], [*range(12), *range(12), *range(12)]):
        some = gradient_of(net, x[:, chosen].contiguous(), y[chosen], precision=precision)
        assert torch.equal(some, whole[:, chosen]), len(chosen)


def test_a_samples_gradient_at_the_image_has_the_same_bits_in_any_batch():
    clf = fastsnn.Classifier(settled(), fastsnn.nn.PhaseEncoder(T=10))
    images, y = torch.rand(9, 3, 32, 32), torch.arange(9)
    whole = gradient_of(clf, images, y)
    for chosen in ([4], [8, 0, 3], [*range(9), *range(9)]):
        assert torch.equal(gradient_of(clf, images[chosen], y[chosen]), whole[chosen])


@pytest.mark.parametrize("T", [1, 4, 10])
def test_sums_in_one_order_are_torchs_up_to_rounding(T):
    linear, x = nn.Linear(37, 11).requires_grad_(False), torch.randn(T, 5, 37)

    def outputs():
        leaf = x.clone().requires_grad_()
        out = linear(leaf).mean(0)
        return out.detach(), torch.autograd.grad(out.square().sum(), leaf)[0]

    plain = outputs()
    with in_one_order():
        ours = outputs()
    for a, b in zip(ours, plain, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def test_other_means_and_trained_weights_are_left_to_torch():
    linear, x = nn.Linear(5, 3), torch.randn(9, 4, 5)
    expected = (x.mean((0, 1)), x.mean(0, keepdim=True), x.double().mean(0), x[:, 0, 0].mean(0), linear(x))
    with in_one_order():
        results = (x.mean((0, 1)), x.mean(0, keepdim=True), x.double().mean(0), x[:, 0, 0].mean(0), linear(x))
        results[-1].sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
    assert linear.weight.grad is not None


class Mixing(nn.Module):
    """Its samples see each other."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        logits = self.net(x)
        return logits + logits.mean(0)


def test_only_networks_that_are_known_to_keep_samples_apart_are_called_independent():
    net = settled()
    assert are_independent(net)
    assert are_independent(fastsnn.Classifier(net, fastsnn.nn.PhaseEncoder()))
    assert not are_independent(Mixing(net))
    assert not are_independent(lambda x: net(x))
    assert not are_independent(net.train())
    net.eval()
    handle = net.fc.register_forward_hook(lambda *_: None)
    assert not are_independent(net)
    handle.remove()
    net.forward = Mixing(settled())
    assert not are_independent(net)


@pytest.mark.parametrize("how", [{"bn": "batch"}, {"bn": "drift"}, {"precision": "reference"}, {"engine": None}])
def test_batch_statistics_and_torchs_own_sums_are_not_called_independent(how):
    with input_gradient(settled(), **how) as gradient:
        assert not gradient.independent
