"""Long attacks that stop where iterates come back: the same bits as all steps, and fewer looks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn.analysis import gradient_sparsity
from fastsnn.attacks import PGD, cycles, pgd, recordings
from fastsnn.attacks.gradient import InputGradient
from fastsnn.engine import batch_size

from ..spikingjelly_networks import batch
from .networks import plain, settled, tiny


@pytest.fixture
def looks(monkeypatch):
    """Return a list of the sizes of batches that attacks looked at, in passes that are not replayed."""
    monkeypatch.setattr(recordings, "recorder_on", lambda device: None)
    sizes, own = [], InputGradient.look

    def look(self, x, y):
        sizes.append(len(y))
        return own(self, x, y)

    monkeypatch.setattr(InputGradient, "look", look)
    return sizes


def linear(classes=6, seed=0):
    """Return a network whose gradient changes sign where probabilities do: iterates end in rounds, most of two."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, classes)).eval()
    net[1].weight.data.mul_(8)
    return net


def images(B=12, seed=3):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(B, 3, 8, 8, generator=g), torch.randint(6, (B,), generator=g)


def attack(net, x, y, seed=0, **how):
    return pgd(net, x, y, generator=torch.Generator().manual_seed(seed), **({"eps": 0.1, "alpha": 0.01} | how))


def every_step(net, x, y, monkeypatch, **how):
    with monkeypatch.context() as patch:
        patch.setattr(cycles, "LONG", 10**9)
        return attack(net, x, y, **how)


def assert_as_every_step(net, x, y, monkeypatch, **how):
    expected = every_step(net, x, y, monkeypatch, **how)
    for _ in range(3):  # as they are, recorded, replayed
        result = attack(net, x, y, **how)
        for a, b in zip(*([one] if torch.is_tensor(one) else one for one in (result, expected)), strict=True):
            assert torch.equal(a.view(torch.int32), b.view(torch.int32)) and a.stride() == b.stride()


@pytest.mark.parametrize("alpha", [0.003, 0.01, 0.04])
@pytest.mark.parametrize("steps", [50, 51, 52, 53, 97, 200])
def test_rounds_end_an_attack_early_with_the_same_bits(looks, monkeypatch, steps, alpha):
    net, (x, y) = linear(), images()
    expected = every_step(net, x, y, monkeypatch, steps=steps, alpha=alpha)
    assert looks == [12] * steps
    looks.clear()
    assert torch.equal(attack(net, x, y, steps=steps, alpha=alpha), expected)
    assert sum(looks) <= 12 * steps
    if steps > 60 and alpha > 0.02:
        assert sum(looks) < 12 * steps * 0.8


def test_samples_leave_when_most_have_arrived_and_the_last_step_is_for_all(looks):
    net, (x, y) = linear(), images(B=16)
    attack(net, x, y, steps=400)
    sizes = looks[:-1]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 16 and sizes[-1] < 8 and looks[-1] == 16
    assert sum(looks) < 16 * 100


def test_a_round_is_told_from_a_line_that_is_long():
    """A walk along two rounds of 3 and 7 steps that begin after 5 and 40, one sample each."""
    first = torch.zeros(2, 1, 1, 4)
    at = [lambda n: n if n < 5 else 5 + (n - 5) % 3, lambda n: n if n < 40 else 40 + (n - 40) % 7]

    def iterate(n, who=(0, 1)):
        return torch.stack([torch.full((1, 1, 4), float(at[i](n))) for i in who])

    for steps in range(1, 180):
        rounds, n = cycles.Rounds(first, steps, apart=False), 0
        while not rounds.may_go:
            n += 1
            rounds(iterate(n), n)
        assert n <= steps and torch.equal(rounds.wanted, iterate(steps)), steps
        assert n < steps or steps < 120, steps  # together they come back every 21 steps


def test_walks_apart_end_apart():
    first, steps = torch.zeros(3, 1, 1, 2), 1000
    rounds = cycles.Rounds(first, steps, apart=True)
    lengths, n, who, seen = (1, 2, 5), 0, [0, 1, 2], []
    while rounds.left:
        made = 0
        while not rounds.may_go:
            made += 1
            n += 1
            here = torch.stack([torch.full((1, 1, 2), float(n if n < 30 else 30 + (n - 30) % lengths[i])) for i in who])
            rounds(here, made)
        who = [who[i] for i in rounds.go_on_without(made).tolist()]
        seen.append((n, list(who)))
    assert [left for _, left in seen] == [[2], []] and n < 60
    assert [one.unique().tolist() for one in rounds.wanted] == [[30.0], [30.0 + 970 % 2], [30.0 + 970 % 5]]


def test_an_end_that_is_passed_over_comes_again():
    """Three samples stand still from step 6 on and leave; the fourth's round of 4 ends where nobody looks."""

    def iterate(n, who):
        values = [float(min(n, 6) if i < 3 else 100 + n % 4 if n >= 4 else 50 + n) for i in who]
        return torch.stack([torch.full((1, 1, 2), value) for value in values])

    for steps in range(45, 70):
        rounds, who = cycles.Rounds(iterate(0, range(4)), steps, apart=True), list(range(4))
        while rounds.left:
            made = 0
            while not rounds.may_go:
                made += 2 if made == 0 else 1  # as a recording's warm-up has it
                rounds(iterate(rounds.start + made, who), made)
            who = [who[i] for i in rounds.go_on_without(made).tolist()]
        assert torch.equal(rounds.wanted, iterate(steps, range(4))), steps


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("steps", range(50, 62))
def test_rounds_that_end_in_a_recording_s_first_steps(monkeypatch, steps, fails):
    """A walk by a table: the samples that are left over make a recording of their own, or fail to."""
    net, (x, y) = linear(), images(B=4)

    def step(adv, origin, gradient, eps, alpha, axis, exact, out):
        moved = adv.clone()
        for i, value in enumerate(adv[:, 0, 0, 0].tolist()):
            n = round(value * 64)
            moved[i] = (min(n + 1, 6) if eps[i] < 0.5 else n + 1 if n < 7 else 4) / 64
        return moved

    def refused(*_):
        raise RuntimeError("refused")

    if fails:
        monkeypatch.setattr(recordings.CpuTape, "capture", refused)
    else:  # a tape would not note the table
        monkeypatch.setattr(recordings.CpuTape, "warm_up", lambda self, step: step())
        monkeypatch.setattr(recordings.CpuTape, "capture", lambda self, step: step)
        monkeypatch.setattr(recordings.CpuTape, "bytes", 0, raising=False)
    monkeypatch.setattr("fastsnn.ops.attack_step.step", step)
    how = {"eps": torch.tensor([0.1, 0.1, 0.1, 0.9]), "steps": steps, "random_start": False}
    expected = every_step(net, torch.zeros_like(x), y, monkeypatch, graph=None, **how)
    assert torch.equal(attack(net, torch.zeros_like(x), y, **how), expected)


def test_long_attacks_record_no_look_for_their_last_step():
    clf = tiny()
    x, y = torch.rand(5, 3, 16, 16), torch.arange(5)
    for _ in range(3):
        attack(clf, x, y, steps=60)
    assert {key[0][0] for key in recordings.of_networks[clf].kept} == {"step"}


def test_zero_and_minus_zero_are_two_places():
    rounds = cycles.Rounds(torch.zeros(1, 2), 9, apart=True)
    assert not rounds(-torch.zeros(1, 2), 1)
    assert not rounds(torch.zeros(1, 2), 2)
    assert rounds(-torch.zeros(1, 2), 3)  # as at step 9
    assert rounds.wanted.signbit().all()


@pytest.mark.parametrize(
    "how",
    [
        {"eps": [0.05, 0.2]},
        {"restarts": 2},
        {"eps": torch.linspace(0, 0.3, 12), "alpha": torch.linspace(0.001, 0.05, 12)},
        {"random_start": False},
        {"targeted": True},
        {"bn": "batch"},
        {"precision": "reference"},
        {"precision": "fast"},
        {"engine": None},
        {"graph": None},
    ],
    ids=str,
)
def test_settings_of_pgd(monkeypatch, how):
    assert_as_every_step(linear(), *images(), monkeypatch, steps=60, **how)


@pytest.mark.parametrize("how", [{}, {"bn": "batch"}, {"graph": None}, {"precision": "fast"}], ids=str)
def test_spiking_networks(monkeypatch, how):
    """Some samples black, whose steps go downwards alone, beside others that never come back."""
    net, (x, y) = settled(), batch(B=4)
    x[:, 1:3] = 0
    assert_as_every_step(net, x, y, monkeypatch, steps=55, alpha=0.01, eps=0.03, **how)
    clf = tiny()
    x, y = torch.rand(5, 3, 16, 16), torch.arange(5)
    assert_as_every_step(clf, x, y, monkeypatch, steps=55, alpha=0.01, eps=0.03, **how)


def test_zero_gradients_end_after_a_few_looks(looks):
    net, (x, y) = settled(), batch(B=4)
    net.fc.weight.data.zero_()
    attack(net, x, y, steps=500)
    assert len(looks) < 20


def test_an_image_in_any_layout(monkeypatch):
    net, (x, y) = linear(), images()
    for image in (x.contiguous(memory_format=torch.channels_last), x.mT.contiguous().mT, x[:1], x[:0]):
        assert_as_every_step(net, image, y[: len(image)], monkeypatch, steps=60)


def test_recorded_steps_are_looked_at_too(monkeypatch):
    clf = tiny()
    clf.net.fc.weight.data.zero_()
    x, y = torch.rand(5, 3, 16, 16), torch.arange(5)
    played, own = [], fastsnn.ops.tape.Tape.play
    monkeypatch.setattr(fastsnn.ops.tape.Tape, "play", lambda tape: (played.append(1), own(tape)))
    for _ in range(2):
        attack(clf, x, y, steps=4)
    played.clear()
    result = attack(clf, x, y, steps=500)
    assert 0 < len(played) < 20
    assert torch.equal(result, every_step(clf, x, y, monkeypatch, steps=500))
    assert len(played) > 499


def all_looks(net, x, y, looks, **how):
    looks.clear()
    attack(net, x, y, **({"steps": 60, "alpha": 0.04} | how))
    return looks == [len(y)] * how.get("steps", 60)


def test_who_makes_every_step(looks):
    """Short attacks; moving statistics; networks we do not know; means of passes; and rules, which remember."""
    net, (x, y) = linear(), images()
    assert not all_looks(net, x, y, looks)
    assert all_looks(net, x, y, looks, steps=49)
    assert all_looks(net, x, y, looks, bn="drift")
    assert all_looks(plain(classes=6), x, y, looks)
    assert all_looks(nn.Sequential(net, nn.Dropout(0)).eval(), x, y, looks)
    assert all_looks(fastsnn.attacks.EOT(net, 2), x, y, looks)
    assert all_looks(net, x, y, looks, norm="l2", alpha=1)
    clf = tiny()
    clf.net.fc.weight.data.zero_()
    x, y = torch.rand(3, 3, 16, 16), torch.arange(3)
    assert not all_looks(clf, x, y, looks)
    assert all_looks(clf, x, y, looks, surrogate="assg")
    drawn = fastsnn.Classifier(clf.net, fastsnn.nn.RateEncoder(T=4, straight_through=True)).eval()
    assert all_looks(drawn, x, y, looks)


def test_who_watches_sees_every_step(looks):
    net, (x, y) = linear(), images()
    handle = net[1].register_forward_hook(lambda *_: None)
    assert all_looks(net, x, y, looks)
    handle.remove()
    assert not all_looks(net, x, y, looks)


def test_gradients_are_counted_at_every_step():
    clf = tiny()
    clf.net.fc.weight.data.zero_()
    x, y = torch.rand(3, 3, 16, 16), torch.arange(3)
    for engine in (None, "auto"):
        pgd_60 = PGD(clf, eps=0.1, alpha=0.01, steps=60)
        assert gradient_sparsity(clf, x, y, attack=pgd_60, engine=engine, underflow=False).passes == 60


@pytest.mark.parametrize("most", [12, 24, 36, 64])
def test_budgets_that_share_passes_have_the_same_bits(monkeypatch, looks, most):
    net, (x, y) = linear(), images()
    expected = [every_step(net, x, y, monkeypatch, steps=60, eps=eps) for eps in (0.05, 0.1, 0.2)]
    monkeypatch.setattr(batch_size, "ON_CPU", most)
    looks.clear()
    for a, b in zip(attack(net, x, y, steps=60, eps=[0.05, 0.1, 0.2]), expected, strict=True):
        assert torch.equal(a, b)
    assert max(looks) == most // 12 * 12 and sum(looks) < 3 * 12 * 60 if most < 64 else max(looks) == 36
