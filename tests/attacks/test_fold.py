"""Several budgets in one call of PGD: the bits of separate calls, however they share batches."""

from __future__ import annotations

import pytest
import torch

import fastsnn
from fastsnn.attacks import fold, pgd

from ..spikingjelly_networks import batch

EPS = [0.0, 2 / 255, torch.tensor([1, 4, 8, 16]) / 255, 8 / 255, 16 / 255]


def settled(depth, pool):
    torch.manual_seed(0)
    net = fastsnn.models.BUILDERS[f"sew_resnet{depth}"](pool, width=16).train()
    for seed in range(5):
        net(batch(B=8, seed=seed)[0])
    return net.eval()


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("together", [2, 64], ids=["two at a time", "all at once"])
@pytest.mark.parametrize("precision", ["fp32", "fast"])
@pytest.mark.parametrize(("depth", "pool"), [(18, "max"), (18, "avg"), (50, "avg")])
def test_a_list_of_budgets_gives_the_bits_of_separate_runs(monkeypatch, depth, pool, precision, together):
    monkeypatch.setitem(fold._SAMPLES, "cpu", 4 * together)
    net, (x, y) = settled(depth, pool), batch(B=4)
    how = {"alpha": 0.01, "steps": 3, "precision": precision}
    results = pgd(net, x, y, eps=EPS, generator=seeded(), **how)
    assert len(results) == len(EPS)
    for eps, result in zip(EPS, results, strict=True):
        assert torch.equal(result, pgd(net, x, y, eps=eps, generator=seeded(), **how))


def test_budgets_share_passes_up_to_a_number_of_samples():
    calls = []

    def network(x):
        calls.append(len(x))
        return x.flatten(1)[:, :3]

    x, y = torch.rand(20, 1, 2, 2), torch.zeros(20, dtype=torch.int64)
    pgd(network, x, y, eps=[0.1, 0.2, 0.3, 0.4], alpha=0.1, steps=1)
    assert calls == [60, 20]


@pytest.mark.parametrize("bn", ["batch", "drift"])
def test_budgets_do_not_share_batch_statistics(bn):
    net, (x, y) = settled(18, "max"), batch(B=4)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    results = pgd(net, x, y, eps=[0.01, 0.02], alpha=0.01, steps=2, bn=bn, generator=seeded())
    net.load_state_dict(state)
    alone = pgd(net, x, y, eps=0.01, alpha=0.01, steps=2, bn=bn, generator=seeded())
    assert torch.equal(results[0], alone)


def test_a_list_draws_as_many_random_numbers_as_one_budget():
    net, (x, y) = settled(18, "max"), batch(B=4)
    states = []
    for eps in (0.01, [0.01, 0.02, 0.03]):
        generator = seeded()
        pgd(net, x, y, eps=eps, alpha=0.01, steps=1, generator=generator)
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_a_wrong_budget_is_refused_before_any_work():
    def network(x):
        raise AssertionError("no work was to be done")

    x, y = torch.rand(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"eps is -0\.1"):
        pgd(network, x, y, eps=[0.1, -0.1], alpha=0.1, steps=1)
    assert pgd(network, x, y, eps=[], alpha=0.1, steps=1) == []


def test_no_samples_are_no_samples_for_every_budget():
    x, y = torch.rand(0, 1, 2, 2), torch.zeros(0, dtype=torch.int64)
    results = pgd(lambda x: x.flatten(1)[:, :3], x, y, eps=[0.1, 0.2], alpha=0.1, steps=1)
    assert [tuple(result.shape) for result in results] == [(0, 1, 2, 2)] * 2
