"""G2S and RSF: against loops over single places, and their promises."""

from __future__ import annotations

import numpy
import pytest
import torch

from fastsnn.attacks import G2S, g2s
from fastsnn.attacks.flips import flipped

from .networks import plain, tiny


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def spikes(*shape):
    return torch.randint(0, 2, shape, generator=seeded(1)).float()


def right(network, x):
    with torch.no_grad():
        return network(x).argmax(1)


def by_places(adv, origin, g, u, most, gamma):
    """One step for one sample: flat arrays of float32."""
    largest, out, new = numpy.abs(g).max(), adv.copy(), []
    for i in range(len(adv)):
        p = numpy.float32(gamma) if largest == 0 else numpy.abs(g[i]) / largest
        along = largest == 0 or (g[i] > 0 if adv[i] == 0 else g[i] < 0)
        if along and u[i] < p:
            out[i] = 1 - adv[i]
            if out[i] != origin[i]:
                new.append((p / u[i], i))
    before = sum(out[i] != origin[i] for i in range(len(adv))) - len(new)
    for _, i in sorted(new, reverse=True)[max(0, most - before) :]:
        out[i] = adv[i]
    return out


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("most", [0, 2, 7, 48])
def test_a_step_is_that_of_a_loop_over_places(axis, most):
    """Sample 0 has a gradient, sample 1 none (RSF), sample 2 a small budget of its own."""
    shape = (4, 3, 1, 3, 4) if axis else (3, 3, 4, 4)
    origin, g, budgets = spikes(*shape), torch.randn(shape, generator=seeded(2)), torch.tensor([most, most, 1])
    g.select(axis, 1).zero_()
    adv, draw, some = origin, seeded(3), 0
    for _ in range(4):
        u = torch.rand(shape, generator=draw)
        out = flipped(adv, origin, g, u, budgets, 0.3, axis)
        for sample in range(3):
            flat = [one.select(axis, sample).reshape(-1).numpy() for one in (adv, origin, g, u)]
            expected = by_places(*flat, int(budgets[sample]), 0.3)
            assert numpy.array_equal(out.select(axis, sample).reshape(-1).numpy(), expected)
        adv, some, g = out, some + int((out != adv).sum()), -g  # so that flips are taken back too
    assert some > 0


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.7, 1.0])
def test_results_are_binary_in_the_budget_and_fooled_or_x_itself(eps):
    net, x = plain(), spikes(8, 3, 8, 8)
    y = right(net, x)
    adv = g2s(net, x, y, eps=eps, steps=10, generator=seeded())
    assert ((adv == 0) | (adv == 1)).all()
    assert ((adv != x).flatten(1).sum(1) <= int(eps * 192 + 1e-6)).all()
    moved = (adv != x).flatten(1).any(1)
    assert torch.equal(right(net, adv) != y, moved)
    assert moved.any() == (eps > 0)


def test_the_share_of_the_places_is_not_lost_to_rounding():
    """0.7 in float32 is less than 0.7, but 7 of 10 places are allowed; the gradient asks for all."""
    x = torch.zeros(1, 10)
    asked = []

    def network(x):
        asked.append(x.detach().sum().item())
        return torch.stack([x.sum(1) * 0, x.sum(1) - 100], 1)

    g2s(network, x, torch.tensor([0]), eps=0.7, steps=3, generator=seeded())
    assert max(asked) == 7


def test_without_a_gradient_it_still_flips():
    """The restricted spike flipper, with a turnover of gamma: about a tenth of the places."""
    asked = []

    def network(x):
        asked.append(x.detach())
        return torch.stack([1 + x.sum(1) * 0, x.sum(1) * 0], 1)

    x = torch.zeros(1, 10000)
    assert torch.equal(g2s(network, x, torch.tensor([0]), eps=1.0, steps=1, gamma=0.1, generator=seeded()), x)
    assert 900 < asked[-1].sum() < 1100


def test_encoded_input_is_attacked_and_samples_do_not_know_of_each_other():
    clf = tiny()
    x = clf.encode(torch.rand(4, 3, 16, 16, generator=seeded(4)))
    y, budgets = right(clf.net, x), [0.02, torch.tensor([0.0, 0.05, 0.1, 0.1])]

    def run(some, budgets):
        how = {"eps": budgets, "steps": 4, "surrogate": "triangle:1"}
        return g2s(clf.net, x[:, some], y[some], generator=[seeded(int(i)) for i in some], **how)

    together = run(torch.arange(4), budgets)
    assert (together[1] != x).any() and torch.equal(together[1][:, 0], x[:, 0])
    for i in range(4):
        some = torch.tensor([i])
        for adv, alone in zip(together, run(some, [budgets[0], budgets[1][some]]), strict=True):
            assert torch.equal(adv[:, some], alone)


def test_the_class_is_the_function_with_its_settings_held():
    net, x = plain(), spikes(4, 3, 8, 8)
    y = right(net, x)
    how = {"eps": 0.2, "steps": 3}
    assert torch.equal(G2S(net, generator=seeded(), **how)(x, y), g2s(net, x, y, generator=seeded(), **how))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x": torch.full((2, 3, 8, 8), 0.5)}, "x has values between 0 and 1"),
        ({"eps": 1.5}, "eps is 1.5, expected a share"),
        ({"eps": -0.1}, "eps is -0.1"),
        ({"steps": 0}, "steps is 0"),
        ({"gamma": 0}, "gamma is 0"),
        ({"gamma": 2.0}, "gamma is 2.0, expected a chance"),
    ],
)
def test_bad_input_is_refused_by_name(wrong, message):
    arguments = {"network": plain(), "x": spikes(2, 3, 8, 8), "y": torch.tensor([0, 1]), "eps": 0.1, "steps": 2}
    with pytest.raises(ValueError) as caught:
        g2s(**arguments | wrong)
    assert message in str(caught.value)
