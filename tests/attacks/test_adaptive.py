"""ASSG and SA-PGD: rules against fused neurons and hand-written loops, and the network as it was."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastsnn
from fastsnn.attacks import SAPGD, apgd, fgsm, pgd, sapgd
from fastsnn.attacks.adaptive import Adaptive
from fastsnn.attacks.input_gradient import input_gradient
from fastsnn.attacks.seen import SeenNode, through_time
from fastsnn.ops.integrate_fire import Neuron, integrate_fire
from fastsnn.ops.integrate_fire.reference import above_threshold, surrogate_gradient

from .networks import plain, tiny

NEURONS = (
    Neuron(),
    Neuron(detach_reset=False),
    Neuron(v_reset=None, detach_reset=False, v_threshold=0.7),
    Neuron(tau=2.0, v_reset=-0.1),
    Neuron(tau=3.0, decay_input=False, detach_reset=False),
)


class Fixed:
    """The network's own arctan, by way of a rule."""

    is_independent = True

    def begin(self):
        pass

    def back(self, current, spikes, neuron):
        slopes = surrogate_gradient(above_threshold(current, neuron), neuron.surrogate, neuron.alpha)
        return through_time(current, slopes, neuron)


def seen(node, rule):
    node.__class__, node.rule = SeenNode, rule
    return node


@pytest.mark.parametrize("neuron", NEURONS)
def test_neurons_under_a_rule_fire_as_their_own_and_the_fixed_rule_has_their_gradient(neuron):
    x, weights = torch.randn(6, 3, 4, 2, 2, requires_grad=True), torch.randn(6, 3, 4, 2, 2)
    options = {"scale": torch.rand(4) + 0.5, "shift": torch.randn(4), "residual": weights.round(), "junction": "and"}
    expected = integrate_fire(x, neuron, **options)
    node = fastsnn.nn.IFNode()
    node.neuron = neuron
    out = seen(node, Fixed())(x, **options)
    assert torch.equal(out, expected)
    for tensor in (out, expected):
        assert tensor.count_nonzero()
    gradients = [torch.autograd.grad((tensor * weights).sum(), x)[0] for tensor in (out, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)


def by_hand(x, grad, means, deviations, v_threshold=1.0):
    """Return the gradient at x [T, B, n] of IF neurons with a detached hard reset, one number at a time."""
    T, B, n = x.shape
    a = 2 * math.tan(math.pi * 0.425) / math.pi
    out = torch.zeros_like(x)
    for b in range(B):
        for i in range(n):
            v, slopes, fired = 0.0, [], []
            for t in range(T):
                h = v + float(x[t, b, i])
                u = h - v_threshold
                means[t][b][i] = 0.9 * means[t][b][i] + 0.1 * abs(u)
                deviations[t][b][i] = 0.9 * deviations[t][b][i] + 0.1 * abs(abs(u) - means[t][b][i])
                alpha = a / (means[t][b][i] + 1.5 * deviations[t][b][i] + 1e-4)
                slopes.append(alpha / 2 / (1 + (math.pi / 2 * alpha * u) ** 2))
                fired.append(h >= v_threshold)
                v = 0.0 if fired[t] else h
            carry = 0.0
            for t in reversed(range(T)):
                carry = float(grad[t, b, i]) * slopes[t] + (0.0 if fired[t] else carry)
                out[t, b, i] = carry
    return out


def test_widths_follow_each_neuron_as_a_loop_over_numbers_has_it():
    T, B, n = 4, 2, 3
    node = seen(fastsnn.nn.IFNode(), Adaptive())
    means = [[[1.0] * n for _ in range(B)] for _ in range(T)]
    deviations = [[[0.0] * n for _ in range(B)] for _ in range(T)]
    first = None
    for _ in range(3):  # a second and third look remember the first
        x, grad = torch.randn(T, B, n, requires_grad=True), torch.randn(T, B, n)
        with torch.no_grad():
            node(x)  # a look without a gradient is not remembered
        got = torch.autograd.grad(node(x), x, grad)[0]
        torch.testing.assert_close(got, by_hand(x.detach(), grad, means, deviations), rtol=1e-5, atol=1e-6)
        first = (x, grad, got) if first is None else first
    x, grad, got = first
    assert not torch.equal(torch.autograd.grad(node(x), x, grad)[0], got)
    node.rule.begin()
    assert torch.equal(torch.autograd.grad(node(x), x, grad)[0], got)


def test_sa_pgd_on_a_smooth_network_is_a_loop_by_hand():
    network, x, y, eps, steps = plain(), torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]), 0.05, 9
    y = network(x).argmax(1)  # all are attacked
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(5)) * 2 - 1
    adv = (x + eps * noise / noise.abs().flatten(1).amax(1)[:, None, None, None]).clamp(0, 1)
    found, fooled, size, momentum, second = x.clone(), torch.zeros(4, dtype=torch.bool), eps, 0, 0
    for _ in range(steps + 1):
        adv = adv.detach().requires_grad_()
        logits = network(adv)
        g = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), adv)[0]
        wrong = logits.argmax(1) != y
        found[wrong], fooled = adv.detach()[wrong], fooled | wrong
        momentum = 0.5 * momentum + g / g.abs().mean((1, 2, 3), keepdim=True)
        second = 0.8 * second + g**2 / (g**2).mean((1, 2, 3), keepdim=True)
        moved = adv.detach() + (momentum / (second.sqrt() + 1e-12) * size).clamp(-size, size)
        adv = torch.min(torch.max(moved, x - eps), x + eps).clamp(0, 1)
        size = size / 2  # 0.22 * 9 is 1, and so is the shortest wait
    got = sapgd(network, x, y, eps=eps, steps=steps, surrogate=None, generator=torch.Generator().manual_seed(5))
    assert fooled.sum() > 0
    torch.testing.assert_close(got, found, rtol=0, atol=1e-6)


@pytest.mark.parametrize("eps", [0.0, 6 / 255, 0.3, 1.0])
def test_sa_pgd_stays_in_the_ball_also_at_the_corners_of_the_cube(eps):
    clf, images, y = tiny(), torch.rand(4, 3, 16, 16), torch.arange(4)
    images[:2] = images[:2].round()
    y = clf(images).argmax(1)
    adv = sapgd(clf, images, y, eps=eps, steps=4)
    assert ((adv.double() - images.double()).abs() <= torch.tensor(eps).double()).all()
    assert adv.min() >= 0 and adv.max() <= 1
    if eps == 1:
        assert (clf(adv).argmax(1) != y).any()


def test_results_do_not_depend_on_the_batch():
    clf, images = tiny(), torch.rand(5, 3, 16, 16)
    y = clf(images).argmax(1)

    def attack(some):
        generators = [torch.Generator().manual_seed(7 + i) for i in some]
        return sapgd(clf, images[some], y[some], eps=0.05, steps=5, generator=generators)

    whole = attack([0, 1, 2, 3, 4])
    assert not torch.equal(whole, images)
    assert torch.equal(whole, torch.cat([attack([0, 1]), attack([2]), attack([3, 4])]))


def test_under_a_rule_the_engine_computes_products_and_logits_keep_their_bits():
    clf, images, y = tiny(), torch.rand(3, 3, 16, 16), torch.arange(3)
    with input_gradient(clf) as gradient:
        own, _, logits = gradient.look(images, y)
        layers = len(gradient.network.layers())
    with input_gradient(clf, surrogate="assg") as gradient:
        g, _, seen_logits = gradient.look(images, y)
        assert gradient.independent and len(gradient.network.layers()) > layers > 0
    assert torch.equal(seen_logits, logits) and not torch.equal(g, own)
    with input_gradient(clf, surrogate="assg", engine=None) as gradient:
        torch.testing.assert_close(gradient(images, y), g, rtol=1e-3, atol=1e-5)


def test_every_budget_of_a_list_begins_anew():
    clf, images = tiny(), torch.rand(3, 3, 16, 16)
    y, how = clf(images).argmax(1), {"surrogate": "assg", "alpha": 0.01, "steps": 3, "random_start": False}
    several = pgd(clf, images, y, eps=[0.02, 0.05], **how)
    for adv, eps in zip(several, (0.02, 0.05), strict=True):
        assert torch.equal(adv, pgd(clf, images, y, eps=eps, **how))


@pytest.mark.parametrize("attack", [fgsm, apgd])
def test_other_attacks_take_the_rule_and_it_matters(attack):
    clf, images = tiny(), torch.rand(4, 3, 16, 16)
    y, how = clf(images).argmax(1), {} if attack is fgsm else {"steps": 3, "generator": None}
    results = []
    for surrogate in ("assg", "assg:0.425", "assg:0.2", None):
        torch.manual_seed(0)
        results.append(attack(clf, images, y, eps=0.05, surrogate=surrogate, **how))
    assert torch.equal(results[0], results[1])
    if attack is fgsm:
        assert not torch.equal(results[0], results[2]) and not torch.equal(results[0], results[3])


def test_neurons_are_their_own_again_also_after_an_exception():
    clf, images, y = tiny(), torch.rand(2, 3, 16, 16), torch.arange(2)
    nodes = [node for node in clf.modules() if isinstance(node, fastsnn.nn.IFNode)]
    before = [(type(node), dict(vars(node))) for node in nodes]
    seen_as = []

    def explode(module, inputs):
        seen_as.append(type(nodes[0]))
        raise KeyboardInterrupt

    handle = clf.net.fc.register_forward_pre_hook(explode)
    with pytest.raises(KeyboardInterrupt):
        fgsm(clf, images, y, eps=0.1, surrogate="assg")
    handle.remove()
    sapgd(clf, images, y, eps=0.1, steps=2)
    assert seen_as == [SeenNode]
    assert [(type(node), dict(vars(node))) for node in nodes] == before


def test_a_layers_hooks_fire_under_a_rule():
    clf, images, y, seen_by = tiny(), torch.rand(2, 3, 16, 16), torch.arange(2), []
    clf.net.sn1.register_forward_hook(lambda module, inputs, out: seen_by.append(out.shape))
    fgsm(clf, images, y, eps=0.1, surrogate="assg")
    assert len(seen_by) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [("assg:0.5", "below 0.5"), ("assg:wide", "assg:wide"), ("asg", "Did you mean 'assg'"), ("assg:0", "above 0")],
)
def test_a_wrong_rule_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        fgsm(tiny(), torch.rand(2, 3, 16, 16), torch.arange(2), eps=0.1, surrogate=text)


def test_networks_without_such_neurons_take_sa_pgd_without_a_surrogate():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x, y = torch.rand(2, 3, 2, 2), torch.arange(2)
    assert SAPGD(network, eps=0.5, steps=3, surrogate=None)(x, y).shape == x.shape
    with pytest.raises(ValueError, match="no neurons of fastsnn"):
        SAPGD(network, eps=0.5, steps=3)(x, y)
