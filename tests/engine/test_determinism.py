"""Same seed, same bits, for any number of threads: whole attacks and whole trainings."""

from __future__ import annotations

import pytest
import torch

import fastsnn
from fastsnn import data, training

from ..ops.cases import threads
from ..spikingjelly_networks import batch


def settled(depth, pool):
    torch.manual_seed(0)
    net = fastsnn.models.BUILDERS[f"sew_resnet{depth}"](pool, width=16).train()
    for seed in range(5):
        net(batch(B=8, seed=seed)[0])
    return net.eval()


@pytest.mark.parametrize("precision", ["fp32", "fast"])
@pytest.mark.parametrize("bn", ["frozen", "batch"])
@pytest.mark.parametrize(("depth", "pool"), [(18, "max"), (50, "avg")])
def test_an_attack_has_the_same_bits_for_any_number_of_threads(depth, pool, bn, precision):
    net, (x, y) = settled(depth, pool), batch(B=8)
    how = {"eps": 8 / 255, "alpha": 0.01, "steps": 3, "bn": bn, "precision": precision}
    results = []
    for n in (1, 2, 3):
        with threads(n):
            results.append(fastsnn.attacks.pgd(net, x, y, generator=torch.Generator().manual_seed(0), **how))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_training_has_the_same_bits_for_the_same_number_of_threads():
    digits = data.load("digits", "train")
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        net = fastsnn.models.sew_resnet18(width=8)
        training.train(net, digits.images[:64], digits.labels[:64], epochs=1, batch_size=16, T=4, seed=1)
        states.append(net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))


def test_a_default_device_of_the_callers_does_not_reach_the_kernels():
    net, (x, y) = settled(18, "max"), batch(B=2)
    expected = fastsnn.attacks.fgsm(net, x, y, eps=0.1)
    with torch.device("meta"):
        adv = fastsnn.attacks.fgsm(net, x, y, eps=torch.full((2,), 0.1, device="cpu"))
    assert torch.equal(adv, expected)
