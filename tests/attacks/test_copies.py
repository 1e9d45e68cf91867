from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

import fastsnn
from fastsnn.attacks import PGD, pgd
from fastsnn.engine import batch_size

from ..spikingjelly_networks import batch
from .networks import settled

EPS = [2 / 255, 6 / 255, 0.1]
HOW = {"alpha": 0.01, "steps": 3}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def net():
    return settled()


@pytest.fixture(params=[1, 7, 1000], ids=["one by one", "some", "all in one pass"])
def samples_per_pass(request, monkeypatch):
    monkeypatch.setattr(batch_size, "ON_CPU", request.param)
    return request.param


def passes_of(net, *args, **how):
    """Return pgd's result and the number of samples in each of its forward passes."""
    seen = []
    forward = type(net).forward_sequence

    def count(self, x):
        seen.append(x.shape[1])
        return forward(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(net), "forward_sequence", count)
        return pgd(net, *args, graph=None, **how), seen  # a replay makes no pass that one could see


@pytest.mark.parametrize("B", [1, 3])
@pytest.mark.parametrize("bn", ["frozen", "batch", "drift"])
@pytest.mark.parametrize("precision", ["reference", "fp32", "fast"])
def test_a_list_of_budgets_gives_what_one_run_for_each_gives_from_the_same_draws(
    net, samples_per_pass, B, bn, precision
):
    (x, y), how = batch(T=10, B=B), HOW | {"bn": bn, "precision": precision}
    state = {name: value.clone() for name, value in net.state_dict().items()}
    expected = [pgd(net, x, y, eps=eps, generator=seeded(), **how) for eps in EPS]
    net.load_state_dict(state)
    results, passes = passes_of(net, x, y, eps=EPS, generator=seeded(), **how)
    net.load_state_dict(state)
    assert isinstance(results, list)
    assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(results, expected, strict=True))
    together = bn == "frozen" and precision != "reference"
    assert max(passes) == (B * max(1, min(3, samples_per_pass // B)) if together else B)


@pytest.mark.parametrize(("depth", "pool"), [(18, "avg"), (50, "max"), (50, "avg")])
def test_copies_have_the_bits_of_separate_runs_in_other_networks(samples_per_pass, depth, pool):
    net, (x, y) = settled(depth, pool), batch(T=10, B=3)
    results = pgd(net, x, y, eps=EPS, generator=seeded(), **HOW)
    for adv, eps in zip(results, EPS, strict=True):
        assert torch.equal(adv, pgd(net, x, y, eps=eps, generator=seeded(), **HOW))


def test_copies_of_images_have_the_bits_of_separate_runs(net, samples_per_pass):
    clf = fastsnn.Classifier(net, fastsnn.nn.PhaseEncoder(T=4))
    images = torch.rand(3, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    y = torch.arange(3)
    eps = [0.03, torch.tensor([0.0, 0.1, 0.2])]
    for adv, one in zip(PGD(clf, eps, generator=seeded())(images, y), eps, strict=True):
        alone = PGD(clf, one, generator=seeded())(images, y)
        assert torch.equal(adv, alone)


def worst_of(net, x, y, results):
    """Choose per sample by plain rules."""
    chosen = []
    for b in range(x.shape[1]):
        logits = [net(adv[:, b : b + 1]) for adv in results]
        losses = [cross_entropy(one, y[b : b + 1]).item() for one in logits]
        fooled = [r for r, one in enumerate(logits) if one.argmax() != y[b]]
        chosen.append(fooled[0] if fooled else losses.index(max(losses)))
    return chosen


@pytest.mark.parametrize("eps", [0.02, 0.2])
def test_restarts_keep_the_first_that_fools_else_the_highest_loss_for_each_sample(net, samples_per_pass, eps):
    x, _ = batch(B=8)
    y = net(x).argmax(1)
    generator = seeded()
    runs = [pgd(net, x, y, eps=eps, generator=generator, **HOW) for _ in range(4)]
    adv = pgd(net, x, y, eps=eps, restarts=4, generator=seeded(), **HOW)
    chosen = worst_of(net, x, y, runs)
    assert len({*chosen}) > 1, "else this proves nothing"
    for b, r in enumerate(chosen):
        assert torch.equal(adv[:, b], runs[r][:, b])


def test_restarts_of_several_budgets_share_their_draws(net, samples_per_pass):
    x, y = batch(B=2)
    results = pgd(net, x, y, eps=EPS, restarts=3, generator=seeded(), **HOW)
    for adv, eps in zip(results, EPS, strict=True):
        assert torch.equal(adv, pgd(net, x, y, eps=eps, restarts=3, generator=seeded(), **HOW))


def test_one_budget_and_one_restart_draw_once_and_never_score(net):
    x, y = batch()
    generator, plain = seeded(), seeded()
    torch.rand(x.shape, generator=plain)
    _, passes = passes_of(net, x, y, eps=0.1, generator=generator, **HOW)
    assert torch.equal(generator.get_state(), plain.get_state())
    assert passes == [2] * HOW["steps"]


@pytest.mark.parametrize("bn", ["batch", "drift"])
def test_choosing_among_restarts_moves_no_statistics(bn):
    x, y = batch(B=4)
    net, generator = settled(), seeded()
    for _ in range(3):
        pgd(net, x, y, eps=0.1, bn=bn, generator=generator, **HOW)
    other = settled()
    pgd(other, x, y, eps=0.1, bn=bn, restarts=3, generator=seeded(), **HOW)
    for (name, a), b in zip(net.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_a_generator_for_each_sample_makes_its_start_independent_of_the_batch(net):
    x, y = batch(B=4)
    whole = pgd(net, x, y, eps=0.1, generator=[seeded(i) for i in range(4)], **HOW)
    for chosen in ([0], [3, 1]):
        some = pgd(net, x[:, chosen], y[chosen], eps=0.1, generator=[seeded(i) for i in chosen], **HOW)
        assert torch.equal(some, whole[:, chosen])


def test_an_empty_batch_comes_back_empty_from_several_budgets_and_restarts(net):
    x, y = torch.zeros(4, 0, 3, 32, 32), torch.zeros(0, dtype=torch.long)
    assert [adv.shape for adv in pgd(net, x, y, eps=EPS, restarts=2, **HOW)] == [x.shape] * 3


def test_too_little_memory_halves_the_copies_and_goes_on(net, monkeypatch):
    (x, y), passes = batch(B=2), []
    monkeypatch.setattr(batch_size, "ON_CPU", 1000)
    forward = type(net).forward_sequence

    def small(self, x):
        passes.append(x.shape[1])
        if x.shape[1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 bytes.")
        return forward(self, x)

    expected = [pgd(net, x, y, eps=eps, generator=seeded(), **HOW) for eps in EPS * 2]
    monkeypatch.setattr(type(net), "forward_sequence", small)
    results = pgd(net, x, y, eps=EPS * 2, graph=None, generator=seeded(), **HOW)
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
    assert passes == [12, 6, *[2] * 18], "6 copies, then 3, then 1"


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"eps": []}, ValueError, "eps is [], expected at least one budget"),
        ({"eps": [0.1, -0.1]}, ValueError, "eps is -0.1"),
        ({"eps": [0.1, "big"]}, TypeError, "eps is 'big'"),
        ({"restarts": 0}, ValueError, "restarts is 0, expected an integer of at least 1"),
        ({"restarts": 1.5}, TypeError, "restarts is 1.5"),
        ({"restarts": 2, "random_start": False}, ValueError, "restarts is 2 without a random start"),
        ({"generator": [seeded()]}, ValueError, "generator is a list of 1, expected 2"),
    ],
)
def test_bad_budgets_and_restarts_are_refused_by_name(net, wrong, error, message):
    x, y = batch()
    with pytest.raises(error) as caught:
        pgd(net, x, y, **({"eps": 0.1} | HOW | wrong))
    assert message in str(caught.value)
