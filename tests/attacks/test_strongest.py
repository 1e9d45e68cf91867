"""The worst case of several attacks: counted by hand, dropped samples, tables, and the rules of the ensemble."""

from __future__ import annotations

import math

import pytest
import torch

import fastsnn
from fastsnn.attacks import Ensemble, Strongest, apgd, ensemble, fgsm, pgd, strongest
from fastsnn.attacks.rules import BPTR, HART, PDSG, RGA, Damped, Exponential, Straight
from fastsnn.attacks.seen import SeenNode
from fastsnn.attacks.strongest import SURROGATES
from fastsnn.attacks.surrogates import maker_of
from fastsnn.attacks.worst_case import Additions, Part, worst_case
from fastsnn.ops.integrate_fire import Neuron, integrate_fire

from .networks import tiny

HOW = {"precision": "fp32", "engine": "auto", "generator": None}
FEW = ("triangle:1", "bptr")
QUICK = {"steps": 4, "ensemble_steps": 2, "surrogates": FEW, "n_queries": 3}


def bright(x):
    """Return logits of two classes: 1 where the mean is above a half."""
    mean = x.flatten(1).mean(1)
    return torch.stack([0.5 - mean, mean - 0.5], 1)


def shift(by, seen=None):
    """Return an attack that adds a constant, and notes how many samples it got."""

    def run(network, x, y, eps, generator):
        if seen is not None:
            seen.append((len(y), eps.tolist(), generator))
        return (x + by).clamp(0, 1)

    return run


def test_each_attack_gets_what_is_left_and_the_table_says_what_it_added():
    means = torch.tensor([0.1, 0.3, 0.42, 0.48, 0.9])  # the last is misclassified as it is
    x, y, eps = means.view(5, 1, 1, 1).repeat(1, 1, 2, 2), torch.zeros(5, dtype=torch.int64), torch.arange(5.0)
    seen, generators = [], [torch.Generator() for _ in range(5)]
    parts = (
        Part("near", None, shift(0.05, seen)),
        Part("far", "a", shift(0.1, seen)),
        Part("farther", "b", shift(0.25, seen)),
    )
    adv, table = worst_case(bright, x, y, parts, eps=eps, **HOW | {"generator": generators})
    counts = [(row.attack, row.surrogate, row.tried, row.fooled) for row in table]
    assert counts == [("none", None, 5, 1), ("near", None, 4, 1), ("far", "a", 3, 1), ("farther", "b", 2, 1)]
    assert [budgets for _, budgets, _ in seen] == [[0, 1, 2, 3], [0, 1, 2], [0, 1]]
    assert [[generators.index(one) for one in some] for *_, some in seen] == [[0, 1, 2, 3], [0, 1, 2], [0, 1]]
    torch.testing.assert_close(adv[:, 0, 0, 0], torch.tensor([0.1, 0.55, 0.52, 0.53, 0.9]))
    assert table.accuracy == pytest.approx(0.2)
    assert str(table).splitlines()[-1].split() == ["farther", "b", "2", "1", "20.0", "0.0"]


def test_tables_add_up_and_group():
    x, y = torch.tensor([0.1, 0.48]).view(2, 1, 1, 1), torch.zeros(2, dtype=torch.int64)
    parts = tuple(Part("shift", f"s{by}", shift(by)) for by in (0.05, 0.1))
    _, table = worst_case(bright, x, y, parts, eps=0.1, **HOW)
    both = table.plus(table)
    assert [(row.tried, row.fooled) for row in both] == [(4, 0), (4, 2), (2, 0)]
    (_, row) = both.by_attack()
    assert (row.attack, row.surrogate, row.tried, row.fooled) == ("shift", "2 of them", 4, 2)
    assert math.isnan(Additions().accuracy)


def test_the_strongest_leaves_no_more_than_any_of_its_parts_and_stays_in_the_ball():
    clf, images = tiny(), torch.rand(8, 3, 16, 16)
    y = clf(images).argmax(1)
    y[7] = (y[7] + 1) % 10
    attack = Strongest(clf, eps=0.03, **QUICK)
    adv = attack(images, y)
    wrong = clf(adv).argmax(1) != y
    assert torch.equal(adv[~wrong], images[~wrong]) and torch.equal(adv[7], images[7])
    assert attack.table.accuracy == pytest.approx((~wrong).float().mean().item())
    assert ((adv.double() - images.double()).abs() <= torch.tensor(0.03).double()).all()
    assert adv.min() >= 0 and adv.max() <= 1
    names = ["none", "ASSG + SA-PGD", "APGD-ce", "APGD-dlr", "ensemble, fgsm", "ensemble, pgd", "ensemble, apgd"]
    assert [row.attack for row in attack.table.by_attack()] == [*names, "Square"]
    for surrogate in FEW:
        assert (clf(fgsm(clf, images, y, eps=0.03, surrogate=surrogate)).argmax(1) != y).sum() <= wrong.sum()
    attack(images[:2], y[:2])
    assert attack.table[0].tried == 10


def test_results_do_not_depend_on_the_batch():
    clf, images = tiny(), torch.rand(4, 3, 16, 16)
    y = clf(images).argmax(1)

    def attack(some):
        generators = [torch.Generator().manual_seed(3 + i) for i in some]
        return strongest(clf, images[some], y[some], eps=0.02, generator=generators, **QUICK)[0]

    whole = attack([0, 1, 2, 3])
    assert not torch.equal(whole, images)
    assert torch.equal(whole, torch.cat([attack([0]), attack([1, 2, 3])]))


def test_an_ensemble_of_one_is_that_attack():
    clf, images = tiny(), torch.rand(4, 3, 16, 16)
    y = clf(images).argmax(1)
    how = {"eps": 0.05, "steps": 10}

    def seeded():
        return [torch.Generator().manual_seed(seed) for seed in range(4)]

    adv = Ensemble(clf, surrogates=("rectangle:2",), attacks=("apgd",), generator=seeded(), **how)(images, y)
    single = apgd(clf, images, y, surrogate="rectangle:2", generator=seeded(), **how)
    wrong = clf(single).argmax(1) != y
    assert wrong.any() and torch.equal(adv[wrong], single[wrong]) and torch.equal(adv[~wrong], images[~wrong])


def test_the_published_ensemble_runs_on_encoded_input_and_gives_the_neurons_back():
    clf, images = tiny(), torch.rand(2, 3, 16, 16)
    x, y = clf.encode(images), clf(images).argmax(1)
    kinds = [type(module) for module in clf.net.modules()]
    adv, table = ensemble(clf.net, x, y, eps=0.0, alpha=0.01, steps=1)
    assert len(SURROGATES) == 18 and len(table) == 1 + 3 * 18
    assert torch.equal(adv, x) and [row.tried for row in table] == [2] * len(table)
    assert [type(module) for module in clf.net.modules()] == kinds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": [0.1, 0.2]}, "expected one budget"),
        ({"eps": -0.1}, "eps"),
        ({"steps": 0}, "steps is 0"),
        ({"n_queries": 0}, "n_queries is 0"),
        ({"surrogates": ("atn:2",)}, "Did you mean 'atan'"),
        ({"surrogates": ("bptr:2",)}, "'bptr' alone"),
        ({"generator": [torch.Generator()]}, "generator is a list of 1, expected 2"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        strongest(tiny(), torch.rand(2, 3, 16, 16), torch.arange(2), **{"eps": 0.1, **QUICK, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [({"alpha": 0}, "alpha"), ({"attacks": ("pdg",)}, "Did you mean 'pgd'"), ({"steps": 0}, "steps")],
)
def test_wrong_arguments_of_an_ensemble_are_refused_before_it_begins(change, message):
    def network(x):
        raise AssertionError("looked at")

    how = {"eps": 0.1, "alpha": 0.01, "steps": 1}
    with pytest.raises(ValueError, match=message):
        ensemble(network, torch.rand(2, 3, 16, 16), torch.arange(2), **how | change)


# One neuron, IF, threshold 1: currents 0.6, 0.6, 0.2 give h = 0.6, 1.2, 0.2 and spikes 0, 1, 0; u = h - 1.
CURRENT, GRADIENT, U = (0.6, 0.6, 0.2), (1.0, 2.0, 3.0), (-0.4, 0.2, -0.8)


def gradient_of(rule, neuron=None, current=CURRENT):
    node = fastsnn.nn.IFNode()
    node.neuron = neuron or Neuron()
    node.__class__, node.rule = SeenNode, rule
    x = torch.tensor(current).view(-1, 1, 1).requires_grad_()
    out = node(x)
    assert torch.equal(out, integrate_fire(x.detach(), node.neuron))
    return torch.autograd.grad(out, x, torch.tensor(GRADIENT).view(-1, 1, 1))[0].flatten().tolist()


def through_time(slopes):
    """Return what a detached hard reset makes of three slopes: step 0 also charges step 1, which fires."""
    last, fired = GRADIENT[2] * slopes[2], GRADIENT[1] * slopes[1]
    return [GRADIENT[0] * slopes[0] + fired, fired, last]


def test_rules_through_time_have_their_slopes():
    exponential = [math.exp(-2 * abs(u)) for u in U]
    assert gradient_of(Exponential(2.0)) == pytest.approx(through_time(exponential))
    assert gradient_of(Damped(2.0)) == pytest.approx(through_time([0.3 * slope for slope in exponential]))
    assert gradient_of(Straight()) == pytest.approx([3.0, 2.0, 3.0])


def test_pdsg_takes_the_deviation_of_the_voltages_so_far():
    def deviation(values):
        mean = sum(values) / len(values)
        return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))

    sigmas = [1.0, deviation(U[:2]), deviation(U)]
    density = [
        math.exp(-(((u - s / 2) / s) ** 2) / 2) / (math.sqrt(2 * math.pi) * s) for u, s in zip(U, sigmas, strict=True)
    ]
    assert gradient_of(PDSG()) == pytest.approx(through_time(density), rel=1e-5)


def test_pdsg_sees_the_batch_and_so_runs_share_no_pass():
    clf, images = tiny(), torch.rand(4, 3, 16, 16)
    y, how = clf(images).argmax(1), {"alpha": 0.02, "steps": 2, "surrogate": "pdsg", "random_start": False}
    several = pgd(clf, images, y, eps=[0.02, 0.05], **how)
    assert torch.equal(several[1], pgd(clf, images, y, eps=0.05, **how))


def test_rules_without_time():
    assert gradient_of(BPTR()) == [1.0, 2.0, 3.0]
    assert gradient_of(BPTR(), current=(0.1, 0.1, 0.1)) == [0.0, 0.0, 0.0]
    assert gradient_of(RGA()) == [0.5, 1.0, 1.5]  # 0 <= xm <= 2, leak 1: (1 - 0.2 + 0.2) / 2
    assert gradient_of(RGA(), current=(-1.0, 0.0, 0.0)) == [0.0, 0.0, 0.0]
    # HART: the mean of 1 * (1 - 0.4), 2 * (1 - 0.2), 3 * (1 - 0.8)
    assert gradient_of(HART()) == pytest.approx([(0.6 + 1.6 + 0.6) / 3] * 3)
    # a leak of 1/2 on halved input: below 1/2 of the threshold gamma, above (1 - gamma / 2) / 1.5; halved by the input
    leaky = Neuron(tau=2.0)
    assert gradient_of(RGA(0.2), leaky, (0.4, 0.4, 0.4)) == pytest.approx([0.1, 0.2, 0.3])
    assert gradient_of(RGA(0.2), leaky, (1.6, 1.6, 1.6)) == pytest.approx([0.3, 0.6, 0.9])


@pytest.mark.parametrize("text", ["exponential:0", "rga:x", "hart:-1", "straight:1", "atan", "unknown"])
def test_a_wrong_surrogate_is_refused(text):
    with pytest.raises(ValueError, match="surrogate"):
        maker_of(text)
