"""Networks, attacks and a sweep on a CUDA device, against the same on the CPU; the kernels are in test_triton.py."""

from __future__ import annotations

import pytest
import torch

import fastsnn
from fastsnn.engine import prepare

from .spikingjelly_networks import batch

pytestmark = pytest.mark.gpu


def settled(pool="max"):
    torch.manual_seed(0)
    net = fastsnn.models.sew_resnet18(pool, width=16).train()
    for seed in range(10):
        net(batch(B=8, seed=seed)[0])
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("pool", ["max", "avg"])
@pytest.mark.parametrize("prepared", [False, True], ids=["layers", "engine"])
def test_logits_in_fp32_are_those_of_the_cpu(pool, prepared):
    net, (x, _) = settled(pool), batch(B=8)
    expected = net(x)
    net.cuda()
    with fastsnn.nn.precision("fp32"):
        logits = (prepare(net) if prepared else net)(x.cuda())
    close = (logits.cpu() - expected).norm(dim=1) < 1e-3 * expected.norm(dim=1)
    assert close.float().mean() >= 0.75, "a spike flipped by a reordered sum may move a sample, not most of them"


@pytest.mark.parametrize("precision", ["reference", "fp32", "fast"])
@pytest.mark.parametrize("bn", ["frozen", "batch", "drift"])
def test_pgd_stays_in_the_ball_and_restores_the_network(precision, bn):
    net, (x, y) = settled().cuda(), (tensor.cuda() for tensor in batch(B=4))
    generator = torch.Generator("cuda").manual_seed(0)
    how = {"eps": 6 / 255, "alpha": 0.01, "steps": 3, "bn": bn, "precision": precision}
    adv = fastsnn.attacks.pgd(net, x, y, generator=generator, **how)
    assert adv.is_cuda and not torch.equal(adv, x)
    assert (adv.double() - x.double()).abs().max() <= torch.tensor(6 / 255).double()
    assert not net.training and adv.min() >= 0 and adv.max() <= 1


def test_fp32_pins_products_to_ieee_and_puts_torchs_settings_back():
    setting = torch.backends.cudnn.conv
    before = setting.fp32_precision
    with fastsnn.nn.precision("fp32"):
        assert setting.fp32_precision == "ieee"
    assert setting.fp32_precision == before


def test_a_network_that_was_attacked_on_the_cpu_is_attacked_with_its_own_weights_on_the_gpu():
    net, (x, y) = settled(), batch(B=4)
    expected = fastsnn.attacks.fgsm(net, x, y, eps=0.05)
    adv = fastsnn.attacks.fgsm(net.cuda(), x.cuda(), y.cuda(), eps=0.05)
    assert (adv.cpu() == expected).float().mean() > 0.9


def test_a_sweep_runs_on_the_device(tmp_path, monkeypatch):
    from fastsnn.cli import main

    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    flags = "--device cuda --width 4 --epochs 1 --images 20 --eps 0 8 --steps 2 --quiet"
    assert main(["sweep", *flags.split(), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "results.csv").exists()
