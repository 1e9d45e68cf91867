"""L2 and L1 balls: budgets in float64, steps worked by hand, starts by their distribution."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from fastsnn.attacks import fgsm, mim, pgd
from fastsnn.attacks.balls import BALLS

from .networks import plain, tiny

P = {"linf": torch.inf, "l2": 2, "l1": 1}
NORMS = ["l2", "l1"]


def norms(delta, norm, axis=0):
    return torch.linalg.vector_norm(delta.movedim(axis, 0).flatten(1), P[norm], dim=1)


def distance(adv, x, norm, axis=0):
    return norms(adv.double() - x.double(), norm, axis)


def inputs(where, B=6, size=8):
    if where == "inside":
        return torch.rand(B, 3, size, size)
    corners = torch.randint(0, 2, (B, 3, size, size)).float()
    return torch.where(torch.rand_like(corners) < 0.2, torch.rand_like(corners) * 1e-6, corners)


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("where", ["inside", "corners"])
@pytest.mark.parametrize("eps", [0.0, 1e-7, 1 / 255, 0.1, 0.7, 1.0])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_results_are_in_the_ball_and_in_the_unit_cube_exactly(norm, eps, where, random_start):
    net, x, y = plain(), inputs(where), torch.arange(6) % 5
    results = [fgsm(net, x, y, eps=eps, norm=norm)]
    for steps in (0, 1, 4):
        results.append(pgd(net, x, y, eps=eps, alpha=0.3, steps=steps, norm=norm, random_start=random_start))
    results.append(mim(net, x, y, eps=eps, alpha=0.3, steps=3, norm=norm))
    budget = torch.tensor(eps).double()
    for adv in results:
        assert (distance(adv, x, norm) <= budget).all()
        assert adv.min() >= 0 and adv.max() <= 1
    assert eps > 0 or all(torch.equal(adv, x) for adv in results)


@pytest.mark.parametrize("norm", NORMS)
def test_a_result_that_was_scaled_back_is_within_one_float_of_the_sphere(norm):
    net, x, y = plain(), torch.full((6, 3, 8, 8), 0.5), torch.arange(6) % 5
    adv = pgd(net, x, y, eps=0.4, alpha=1.0, steps=3, norm=norm, random_start=False)
    one_float = norms(torch.full_like(x, 2**-24), norm)  # of every value: the floats below 1 are that far apart
    missing = torch.tensor(0.4).double() - distance(adv, x, norm)
    assert (missing >= 0).all() and (missing <= one_float).all()


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_is_the_one_worked_by_hand(norm):
    """Logits (w.x, 0) with y = 1: the gradient is along w = (3, 4)."""

    def network(x):
        flat = x.flatten(1)
        return torch.stack([3 * flat[:, 0] + 4 * flat[:, 1], 0 * flat[:, 0]], 1)

    x, y = torch.full((1, 1, 1, 2), 0.25), torch.tensor([1])
    size = {"l2": 5, "l1": 7}[norm]
    expected = 0.25 + 0.5 * torch.tensor([3.0, 4.0]).view(1, 1, 1, 2) / size
    assert torch.allclose(fgsm(network, x, y, eps=0.5, norm=norm), expected, rtol=0, atol=2e-7)
    twice = pgd(network, x, y, eps=0.5, alpha=0.25, steps=2, norm=norm, random_start=False)
    assert torch.allclose(twice, expected, rtol=0, atol=2e-7)
    clipped = pgd(network, x, y, eps=10.0, alpha=5.0, steps=1, norm=norm, random_start=False)
    assert torch.equal(clipped, torch.ones_like(x))
    assert (fgsm(network, x, y, eps=0.5, norm=norm, targeted=True) < x).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_gradient_of_zero_moves_nothing(norm):
    x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    assert torch.equal(fgsm(lambda x: x.flatten(1) * 0, x, y, eps=0.5, norm=norm), x)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_starts_are_uniform_in_the_ball(norm):
    """A point of a ball in 3 dimensions is within r with probability r ** 3, and on either side of a plane alike."""
    draw = BALLS[norm].draw(torch.Generator().manual_seed(0))(torch.zeros(20000, 1, 1, 3))
    radius = norms(draw, norm)
    for r in (0.3, 0.6, 0.9):
        assert abs((radius <= r).double().mean() - r**3) < 0.01
    assert radius.max() <= 1 + 1e-6
    assert (draw.double().mean(0).abs() < 0.015).all()
    assert abs((draw[:, 0, 0, 0] > draw[:, 0, 0, 1]).double().mean() - 0.5) < 0.015


@pytest.mark.parametrize("norm", NORMS)
def test_a_sample_depends_neither_on_its_batch_nor_on_threads(norm):
    clf, images, y = tiny(), torch.rand(4, 3, 16, 16), torch.arange(4)
    x = clf.encode(images)
    how = {"eps": [0.5, torch.tensor([0.0, 1.0, 2.0, 3.0])], "alpha": 0.4, "steps": 2, "norm": norm}
    threads = torch.get_num_threads()

    def attack(some):
        seeds = [torch.Generator().manual_seed(seed) for seed in some]
        part = {"eps": [how["eps"][0], how["eps"][1][list(some)]]}
        return pgd(clf.net, x[:, list(some)], y[list(some)], generator=seeds, restarts=2, **how | part)

    together = attack(range(4))
    try:
        torch.set_num_threads(1)
        for i in range(4):
            for adv, alone in zip(together, attack([i]), strict=True):
                assert torch.equal(adv[:, i : i + 1], alone)
    finally:
        torch.set_num_threads(threads)
    assert (distance(together[1], x, norm, axis=1) <= how["eps"][1].double()).all()
    assert torch.equal(together[1][:, 0], x[:, 0]) and not torch.equal(together[1][:, 1], x[:, 1])


@pytest.mark.parametrize("norm", NORMS)
def test_more_budget_raises_the_loss(norm):
    net, x = plain(), torch.rand(8, 3, 8, 8)
    with torch.no_grad():
        y = net(x).argmax(1)

    def loss(eps):
        adv = pgd(net, x, y, eps=eps, alpha=eps / 4, steps=10, norm=norm, random_start=False)
        return cross_entropy(net(adv), y).item()

    losses = [loss(eps) for eps in (0.1, 0.5, 2.0)]
    assert cross_entropy(net(x), y).item() < losses[0] < losses[1] < losses[2]


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'l2'"):
        pgd(plain(), torch.rand(1, 3, 8, 8), torch.tensor([0]), eps=1.0, alpha=0.1, steps=1, norm="L2")
