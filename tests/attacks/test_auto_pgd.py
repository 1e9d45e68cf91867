"""APGD: its schedule and losses by hand, its promises; the equality with AutoAttack is in tests/conformance."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastsnn.attacks import APGD, APGDT, apgd, apgdt, pgd, rows
from fastsnn.attacks.auto_pgd import auto_steps, checkpoints
from fastsnn.attacks.balls import BALLS
from fastsnn.attacks.input_gradient import input_gradient
from fastsnn.attacks.objectives import dlr, dlr_towards
from fastsnn.attacks.until_fooled import Attempt

from .networks import plain, tiny

P = {"linf": torch.inf, "l2": 2}
NORMS = ["linf", "l2"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def right(network, x):
    with torch.no_grad():
        return network(x).argmax(1)


def sizes(adv, x, norm):
    return torch.linalg.vector_norm((adv.double() - x.double()).flatten(1), P[norm], dim=1)


def test_checkpoints_are_those_of_the_paper():
    """0.22 N, then gaps that shrink by 0.03 N down to 0.06 N: iterations 22, 41, 57, 70, 80, 87, 93, 99 of 100."""
    assert [at + 1 for at, _ in checkpoints(100)] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [since for _, since in checkpoints(100)] == [22, 19, 16, 13, 10, 7, 6, 6]
    assert [at for at, _ in checkpoints(1)] == [0]
    assert [at + 1 for at, _ in checkpoints(10)] == list(range(2, 11, 1))


def test_the_difference_of_logits_ratio_is_that_worked_by_hand():
    logits = torch.tensor([[5.0, 1.0, 3.0, 0.0], [5.0, 1.0, 3.0, 0.0]])
    assert torch.allclose(dlr(logits, torch.tensor([0, 1])), torch.tensor([-2 / 4, 4 / 4]))
    towards = dlr_towards(torch.tensor([2, 3]))(logits, torch.tensor([0, 0]))
    assert torch.allclose(towards, torch.tensor([-2 / 4.5, -5 / 4.5]))


@pytest.mark.parametrize("attack", [apgd, apgdt])
@pytest.mark.parametrize("eps", [0.0, 1e-7, 2 / 255, 0.3, 1.0])
@pytest.mark.parametrize("norm", NORMS)
def test_results_are_in_the_ball_exactly_and_are_fooled_or_x_itself(norm, eps, attack):
    net = plain()
    x = torch.where(torch.rand(8, 3, 8, 8) < 0.5, torch.rand(8, 3, 8, 8), torch.randint(0, 2, (8, 3, 8, 8)).float())
    y = right(net, x)
    adv = attack(net, x, y, eps=eps, steps=12, norm=norm, generator=seeded())
    assert (sizes(adv, x, norm) <= torch.tensor(eps).double()).all()
    assert adv.min() >= 0 and adv.max() <= 1
    moved = (adv != x).flatten(1).any(1)
    assert torch.equal(right(net, adv) != y, moved)
    assert moved.any() == (eps >= 2 / 255) or norm == "l2"


def test_what_is_wrong_without_an_attack_comes_back_as_it_is():
    net, x = plain(), torch.rand(6, 3, 8, 8)
    y = right(net, x)
    wrong = (y + 1) % 5
    assert torch.equal(apgd(net, x, wrong, eps=0.3, steps=3), x)


@pytest.mark.parametrize("norm", NORMS)
def test_it_fools_at_least_as_many_as_pgd_with_as_many_gradients(norm):
    net, x = plain(size=16), torch.rand(64, 3, 16, 16)
    y, eps = right(net, x), {"linf": 2 / 255, "l2": 0.12}[norm]
    auto = apgd(net, x, y, eps=eps, steps=20, norm=norm, generator=seeded())
    by_pgd = pgd(net, x, y, eps=eps, alpha=eps / 4, steps=21, norm=norm, generator=seeded())
    fooled = [(right(net, adv) != y).sum() for adv in (auto, by_pgd)]
    assert 0 < fooled[1] <= fooled[0] < 64


@pytest.mark.parametrize("attack", [apgd, apgdt])
def test_budgets_and_samples_do_not_know_of_each_other(attack):
    clf, x = tiny(), torch.rand(4, 3, 16, 16)
    y, budgets = right(clf, x), [4 / 255, torch.tensor([0.0, 0.02, 0.1, 0.3])]

    def run(some, budgets):
        return attack(clf, x[some], y[some], eps=budgets, steps=5, generator=[seeded(int(i)) for i in some])

    together = run(torch.arange(4), budgets)
    for i in range(4):
        some = torch.tensor([i])
        for adv, alone in zip(together, run(some, [budgets[0], budgets[1][some]]), strict=True):
            assert torch.equal(adv[some], alone)


def test_encoded_input_and_the_surrogate_are_served():
    clf, images = tiny(), torch.rand(4, 3, 16, 16)
    x = clf.encode(images)
    y, how = right(clf.net, x), {"eps": 0.1, "steps": 6}
    adv = apgd(clf.net, x, y, surrogate="triangle:1", generator=seeded(), **how)
    assert ((adv - x).abs() <= torch.tensor(0.1)).all() and adv.shape == x.shape
    assert (right(clf.net, adv) != y).any()
    assert not torch.equal(adv, apgd(clf.net, x, y, generator=seeded(), **how))
    y = right(copy.deepcopy(clf.net).train(), x)
    for bn in ("batch", "drift"):
        before = clf.net.bn1.running_mean.clone()
        apgd(clf.net, x, y, bn=bn, **how)
        assert torch.equal(clf.net.bn1.running_mean, before) == (bn == "batch")


def test_further_restarts_fool_more_and_leave_what_is_fooled():
    net, x = plain(size=16), torch.rand(64, 3, 16, 16)
    y = right(net, x)
    how = {"eps": 1.5 / 255, "steps": 2, "loss": "dlr"}
    once = apgd(net, x, y, generator=seeded(), **how)
    often = apgd(net, x, y, generator=seeded(), restarts=20, **how)
    fooled = right(net, once) != y
    assert torch.equal(often[fooled], once[fooled])
    assert (right(net, often) != y).sum() > fooled.sum()


@pytest.mark.parametrize("norm", NORMS)
def test_no_value_is_waited_for_between_the_first_look_and_the_result(norm, monkeypatch):
    """Two operators bring a value to the host or a shape that depends on values; a look's own checks come once."""
    monkeypatch.setattr(rows, "read_at_once", lambda tensor: False)  # as on a GPU

    class Watch(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.waits = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
                self.waits.append(func)
            return func(*args, **(kwargs or {}))

    net, x = plain(), torch.rand(4, 3, 8, 8)
    y, counts = right(net, x), []
    for steps in (5, 25):
        with input_gradient(net) as gradient:
            attempt = Attempt(x, y, torch.full((4,), 0.1), BALLS[norm].surface(seeded())(x))
            with Watch() as watch:
                auto_steps(BALLS[norm], steps)(gradient, attempt)
        counts.append(len(watch.waits))
    assert counts[0] == counts[1] <= 1


def test_classes_are_the_functions_with_their_settings_held():
    net, x = plain(), torch.rand(4, 3, 8, 8)
    y = right(net, x)
    how = {"norm": "l2", "eps": 0.3, "steps": 3}
    ours = APGD(net, loss="dlr", generator=seeded(), **how)(x, y)
    assert torch.equal(ours, apgd(net, x, y, loss="dlr", generator=seeded(), **how))
    assert torch.equal(APGDT(net, generator=seeded(), **how)(x, y), apgdt(net, x, y, generator=seeded(), **how))


def test_an_empty_batch_comes_back_empty():
    assert apgd(plain(), torch.rand(0, 3, 8, 8), torch.zeros(0, dtype=torch.long), eps=0.1, steps=2).shape[0] == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "l1"}, "norm is 'l1', expected one of 'linf', 'l2'"),
        ({"loss": "DLR"}, "Did you mean 'dlr'"),
        ({"steps": 0}, "steps is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"eps": -1.0}, "eps is -1.0"),
        ({"loss": "dlr", "network": plain(classes=2)}, "at least 3 classes, but network returned 2"),
    ],
)
def test_bad_input_is_refused_by_name(wrong, message):
    arguments = {"network": plain(), "x": torch.rand(2, 3, 8, 8), "y": torch.tensor([0, 1]), "eps": 0.1, "steps": 2}
    with pytest.raises(ValueError) as caught:
        apgd(**arguments | wrong)
    assert message in str(caught.value)


def test_targets_need_four_classes():
    with pytest.raises(ValueError, match="at least 4 classes, but network returned 3"):
        apgdt(plain(classes=3), torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), eps=0.1, steps=2)
