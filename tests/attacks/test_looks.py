"""Recorded looks: every attack has the bits it has without, in replays that are worth the name."""

from __future__ import annotations

import copy
import gc
import logging
import weakref

import pytest
import torch

import fastsnn
from fastsnn import attacks
from fastsnn.attacks import recordings
from fastsnn.attacks.input_gradient import input_gradient
from fastsnn.attacks.looks import _Look
from fastsnn.attacks.objectives import AWAY, TOWARDS, Objective, dlr
from fastsnn.ops.tape import Tape

from ..spikingjelly_networks import batch
from .networks import settled, tiny


@pytest.fixture
def plays(monkeypatch):
    """Return a list that grows with every replay."""
    played, own = [], Tape.play

    def play(tape):
        played.append(tape)
        own(tape)

    monkeypatch.setattr(Tape, "play", play)
    return played


def looks_of(net):
    return {key[1]: one for key, one in recordings.of_networks[net].kept.items() if isinstance(one, _Look)}


def without(monkeypatch, work):
    with monkeypatch.context() as patch:
        patch.setattr(recordings, "recorder_on", lambda device: None)
        return work()


def generator():
    return torch.Generator().manual_seed(5)


ATTACKS = {
    "fgsm": lambda net, x, y, how: attacks.fgsm(net, x, y, eps=0.05, **how),
    "fgsm, many": lambda net, x, y, how: attacks.fgsm(net, x, y, eps=[0.05, 0.2], **how),
    "fgsm, l2": lambda net, x, y, how: attacks.fgsm(net, x, y, eps=0.5, norm="l2", targeted=True, **how),
    "pgd, l2": lambda net, x, y, how: attacks.pgd(
        net, x, y, eps=0.5, alpha=0.1, steps=4, norm="l2", generator=generator(), **how
    ),
    "pgd, l1": lambda net, x, y, how: attacks.pgd(
        net, x, y, eps=9.0, alpha=1.0, steps=4, norm="l1", restarts=2, generator=generator(), **how
    ),
    "mim": lambda net, x, y, how: attacks.mim(net, x, y, eps=0.1, alpha=0.02, steps=4, **how),
    "mim, targeted": lambda net, x, y, how: attacks.mim(net, x, y, eps=0.1, alpha=0.02, steps=4, targeted=True, **how),
    "apgd": lambda net, x, y, how: attacks.apgd(net, x, y, eps=0.02, steps=6, generator=generator(), **how),
    "apgd, dlr": lambda net, x, y, how: attacks.apgd(
        net, x, y, eps=0.02, steps=6, loss="dlr", restarts=2, generator=generator(), **how
    ),
    "apgd, l2": lambda net, x, y, how: attacks.apgd(
        net, x, y, eps=0.2, steps=6, norm="l2", generator=generator(), **how
    ),
    "apgdt": lambda net, x, y, how: attacks.apgdt(
        net, x, y, eps=0.02, steps=4, targets=3, generator=generator(), **how
    ),
    "sapgd": lambda net, x, y, how: attacks.sapgd(
        net, x, y, eps=0.02, steps=4, generator=generator(), **({"surrogate": None} | how)
    ),
}


@pytest.mark.parametrize("name", [*ATTACKS, "square"])
def test_torch_s_default_type_changes_nothing(net, name):
    x, y = batch(B=4)
    y = net(x).argmax(1)
    made = ATTACKS | {"square": lambda *given: attacks.square(*given[:3], eps=0.05, n_queries=5, generator=generator())}
    expected = made[name](net, x, y, {})
    torch.set_default_dtype(torch.float64)
    try:
        results = [made[name](net, x, y, {}) for _ in range(3)]
    finally:
        torch.set_default_dtype(torch.float32)
    for result in results:
        assert_same(result, expected)


def assert_same(results, expected):
    listed = isinstance(results, list)
    for a, b in zip(results if listed else [results], expected if listed else [expected], strict=True):
        assert torch.equal(a.view(torch.int32), b.view(torch.int32)) and a.stride() == b.stride()


@pytest.mark.parametrize(
    "how", [{}, {"precision": "fast"}, {"bn": "batch"}, {"bn": "drift"}, {"surrogate": "triangle:1"}], ids=str
)
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_have_the_same_bits(net, plays, monkeypatch, name, how):
    other = copy.deepcopy(net)
    for seed in range(5):
        x, y = batch(B=4, seed=seed)
        y = net(x).argmax(1) if seed != 3 else y
        result = ATTACKS[name](net, x, y, how)
        assert_same(result, without(monkeypatch, lambda x=x, y=y: ATTACKS[name](other, x, y, how)))
    for (title, a), b in zip(net.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b), title
    assert plays and set(looks_of(net)) <= {1, 2, 3, 4, 8}, "8 where two restarts share a pass"


def test_one_recording_serves_all_objectives_and_attacks(net, plays, monkeypatch):
    x, y = batch(B=4)
    y = net(x).argmax(1)
    for _ in range(3):
        attacks.fgsm(net, x, y, eps=0.02)
    (look,) = looks_of(net).values()
    plays.clear()
    for name in ATTACKS:
        result = ATTACKS[name](net, x, y, {})
        assert_same(result, without(monkeypatch, lambda name=name: ATTACKS[name](net, x, y, {})))
    assert looks_of(net)[4] is look and len(plays) > 45


@pytest.mark.parametrize("objective", [AWAY, TOWARDS, Objective(dlr, AWAY.reached)], ids=["away", "towards", "dlr"])
def test_a_look_of_a_smaller_batch_is_that_of_its_samples(net, plays, monkeypatch, objective):
    x, y = batch(B=18)

    def look(samples):
        with input_gradient(net, objective=objective) as gradient:
            return gradient.look(x[:, :samples].contiguous(), y[:samples])

    for _ in range(3):
        look(18)
    (recorded,) = looks_of(net).values()
    for samples in (17, 16, 18, 16):
        plays.clear()
        for a, b in zip(look(samples), without(monkeypatch, lambda samples=samples: look(samples)), strict=True):
            assert torch.equal(a, b)
        assert len(plays) == 1
    plays.clear()
    look(15)  # too few: replayed with three copies it would take longer than as it is
    assert not plays and list(looks_of(net).values()) == [recorded]


def test_images_in_any_layout(plays, monkeypatch):
    clf = tiny()
    images, y = torch.rand(3, 3, 16, 16), torch.arange(3)
    for x in 3 * (images, images.contiguous(memory_format=torch.channels_last), images.mT.contiguous().mT):
        result = attacks.mim(clf, x, y, eps=0.1, alpha=0.02, steps=4)
        expected = without(monkeypatch, lambda x=x: attacks.mim(clf, x, y, eps=0.1, alpha=0.02, steps=4))
        assert torch.equal(result, expected) and result.stride() == expected.stride()
    assert plays


def test_losses_and_logits_of_a_look_stay_as_they_are(net):
    x, y = batch(B=4)
    for _ in range(2):
        attacks.mim(net, x, y, eps=0.1, alpha=0.02, steps=4)
    with input_gradient(net) as gradient:
        looks = [gradient.look(batch(B=4, seed=seed)[0], y)[1:] for seed in range(3)]
        kept = [[part.clone() for part in look] for look in looks]
        gradient.look(x, y)
        gradient.again(TOWARDS).look(x, y)
    for look, then in zip(looks, kept, strict=True):
        assert all(torch.equal(a, b) and not a.requires_grad for a, b in zip(look, then, strict=True))


def test_an_attack_with_many_looks_is_recorded_on_its_way(net, plays, monkeypatch):
    x, y = batch(B=4)

    def attack(steps):
        return attacks.mim(net, x, y, eps=0.1, alpha=0.02, steps=steps)

    for steps in (12, 15, 30):
        other = copy.deepcopy(net)
        recordings.of_networks.pop(net, None)
        plays.clear()
        result = attack(steps)
        assert len(plays) == max(0, steps - 12 - 2), "twelve looks, and two that make the recording"
        assert torch.equal(result, without(monkeypatch, lambda steps=steps: attack(steps)))
        assert all(torch.equal(a, b) for a, b in zip(net.buffers(), other.buffers(), strict=True))


@pytest.mark.parametrize("attack", [attacks.mim, attacks.pgd])
def test_weights_that_always_change_are_not_recorded(net, plays, attack):
    x, y = batch(B=4)
    for _ in range(4):
        attack(net, x, y, eps=0.1, alpha=0.02, steps=7)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(1.01)
    assert not plays


@pytest.mark.parametrize("change", ["data", "in place", "new tensor", "module"])
def test_changed_weights_are_noticed(net, plays, monkeypatch, change):
    x, y = batch(B=4)
    for _ in range(3):
        attacks.fgsm(net, x, y, eps=0.05)
    other = settled(batches=6)
    weight, new = net.layer1[0].conv1.weight, other.layer1[0].conv1.weight.detach() + 0.05
    if change == "data":
        weight.data.copy_(new)
    elif change == "in place":
        with torch.no_grad():
            weight.copy_(new)
    elif change == "new tensor":
        net.layer1[0].conv1.weight = torch.nn.Parameter(new, requires_grad=False)
    else:
        net.layer1[0] = other.layer1[0]
    plays.clear()
    for _ in range(4):
        result = attacks.fgsm(net, x, y, eps=0.05)
        assert_same(result, without(monkeypatch, lambda: attacks.fgsm(net, x, y, eps=0.05)))
    assert len(plays) == 1


def test_who_watches_sees_every_look(net, plays):
    x, y = batch(B=4)
    for _ in range(3):
        attacks.fgsm(net, x, y, eps=0.05)
    seen = []
    net.layer2.register_forward_hook(lambda *_: seen.append(1))
    plays.clear()
    for _ in range(3):
        attacks.fgsm(net, x, y, eps=0.05)
    assert len(seen) == 3 and not plays


def test_labels_and_numbers_that_do_not_fit_are_refused_in_replays_as_well(net):
    x, y = batch(B=4)
    for _ in range(3):
        attacks.fgsm(net, x, y, eps=0.05)
    with pytest.raises(ValueError, match="y has the label 10, but network returned 10 classes"):
        attacks.fgsm(net, x, torch.full_like(y, 10), eps=0.05)
    with torch.no_grad():
        net.fc.bias[0] = torch.inf
    for _ in range(4):
        with pytest.raises(ValueError, match="not finite"):
            attacks.fgsm(net, x, y, eps=0.05)


def test_a_look_that_cannot_be_recorded_is_taken_as_it_is(net, monkeypatch, caplog):
    def refused(self, step):
        raise RuntimeError("no memory for the block")

    monkeypatch.setattr(recordings.CpuTape, "capture", refused)
    x, y = batch(B=4)
    expected = without(monkeypatch, lambda: attacks.mim(net, x, y, eps=0.1, alpha=0.02, steps=5))
    with caplog.at_level(logging.WARNING, "fastsnn"):
        for _ in range(4):
            assert torch.equal(attacks.mim(net, x, y, eps=0.1, alpha=0.02, steps=5), expected)
    assert [record.getMessage() for record in caplog.records] == [
        "fastsnn attacks SEWResNet without recorded steps: no memory for the block"
    ]
    assert not looks_of(net)


def test_a_pass_without_memory_lets_go_of_all_recordings(net, monkeypatch):
    x, y = batch(B=4)
    for _ in range(2):
        attacks.fgsm(net, x, y, eps=0.05)
    assert looks_of(net)
    with monkeypatch.context() as patch:

        def forward(*_):
            raise torch.OutOfMemoryError("no memory")

        patch.setattr(type(net), "forward_sequence", forward)
        with pytest.raises(torch.OutOfMemoryError):
            attacks.fgsm(net, x, y, eps=0.05)
    assert not looks_of(net)
    expected = without(monkeypatch, lambda: attacks.fgsm(net, x, y, eps=0.05))
    assert all(torch.equal(attacks.fgsm(net, x, y, eps=0.05), expected) for _ in range(4))


def test_recordings_go_with_their_network(shared):
    net = copy.deepcopy(shared)
    x, y = batch(B=4)
    gc.collect()
    gc.disable()  # nothing waits for the collector
    try:
        for _ in range(3):
            attacks.fgsm(net, x, y, eps=0.05)
        (look,) = looks_of(net).values()
        gone = weakref.ref(look)
        del look, net
        assert gone() is None
    finally:
        gc.enable()


def test_attacks_inside_one_another_do_not_share_a_recording(net, plays, monkeypatch):
    x, y = batch(B=4)
    for _ in range(3):
        attacks.fgsm(net, x, y, eps=0.05)

    def nested():
        with input_gradient(net) as outer:
            first = outer(x, y)
            with input_gradient(net, objective=TOWARDS) as inner:
                between = inner(x, y)
            return first, between, outer(x, y)

    plays.clear()
    for a, b in zip(nested(), without(monkeypatch, nested), strict=True):
        assert torch.equal(a, b)
    assert len(plays) == 2


def test_counted_looks_are_replayed(plays):
    net, parts = settled(), [batch(B=4, seed=seed)[0] for seed in range(6)]
    parts = [(x, net(x).argmax(1)) for x in parts]

    def counted(**how):
        torch.manual_seed(3)  # of APGD's starts
        return fastsnn.analysis.gradient_sparsity(net, parts, engine="auto", underflow=False, per_step=True, **how)

    for how in ({}, {"attack": attacks.APGD(net, eps=1e-3, steps=3)}, {"attack": attacks.FGSM(net, eps=0.1)}):
        plays.clear()
        found = counted(**how)
        assert len(plays) >= 3
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recordings, "recorder_on", lambda device: None)
            expected = counted(**how)
        assert [tuple(map(repr, row)) for row in found] == [tuple(map(repr, row)) for row in expected]
        assert (found.passes, found.samples) == (expected.passes, expected.samples)
