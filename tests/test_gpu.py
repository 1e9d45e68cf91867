"""Networks, attacks and a sweep on a CUDA device, against the same on the CPU; the kernels are in test_triton.py."""

from __future__ import annotations

import copy
import gc
import logging

import pytest
import torch

import fastsnn
from fastsnn.attacks import recordings
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


# Recorded steps; their logic is in attacks/test_graph.py


@pytest.fixture
def same_algorithms(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def on_the_gpu(**how):
    return [tensor.cuda() for tensor in batch(**how)]


def attacked(net, x, y, seed=0, **how):
    how = {"eps": 6 / 255, "alpha": 0.01, "steps": 5} | how
    return fastsnn.attacks.pgd(net, x, y, generator=torch.Generator("cuda").manual_seed(seed), **how)


def assert_as_without_graphs(net, x, y, **how):
    """Attack the network and a copy; sums may be reordered by an algorithm that is chosen anew."""
    other = copy.deepcopy(net)
    adv, expected = attacked(net, x, y, **how), attacked(other, x, y, graph=None, **how)
    assert adv.stride() == expected.stride()
    assert (adv == expected).float().mean() > 0.9
    assert ((adv.double() - x.double()).abs() <= torch.as_tensor(how.get("eps", 6 / 255)).double()).all()
    for a, b in zip(net.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)


def sizes_recorded(net):
    return [samples for _, samples in recordings.of_networks[net].kept]


@pytest.mark.parametrize("engine", ["auto", None])
@pytest.mark.parametrize("bn", ["frozen", "batch", "drift"])
@pytest.mark.parametrize("precision", ["reference", "fp32", "fast"])
def test_a_recorded_step_does_what_steps_one_by_one_do(same_algorithms, caplog, precision, bn, engine):
    net, how = settled().cuda(), {"bn": bn, "precision": precision, "engine": engine}
    with caplog.at_level(logging.WARNING, "fastsnn"):
        for seed, eps in enumerate((6 / 255, 0.01, 0.1, 0.03)):
            x, y = on_the_gpu(B=4, seed=seed)
            assert_as_without_graphs(net, x, y, seed=seed, eps=eps, alpha=eps / 4, **how)
    assert not caplog.records and sizes_recorded(net) == [4]


def test_images_go_through_the_encoder_in_a_recorded_step(same_algorithms):
    clf = fastsnn.Classifier(settled(), fastsnn.nn.PhaseEncoder(T=4)).cuda()
    for seed in range(3):
        assert_as_without_graphs(clf, torch.rand(4, 3, 32, 32, device="cuda"), torch.arange(4).cuda(), seed=seed)
    assert sizes_recorded(clf) == [4]


def test_a_smaller_batch_is_filled_up_and_changed_weights_are_recorded_anew(same_algorithms):
    net = settled().cuda()
    for samples in (4, 4, 3):
        assert_as_without_graphs(net, *on_the_gpu(B=samples))
    (recording,) = recordings.of_networks[net].kept.values()
    net.layer1[0].conv1.weight.data.mul_(1.5)
    for _ in range(3):
        assert_as_without_graphs(net, *on_the_gpu(B=4))
    (another,) = recordings.of_networks[net].kept.values()
    assert another is not recording


def test_recording_and_replaying_move_no_random_numbers(same_algorithms):
    net, (x, y) = settled().cuda(), on_the_gpu(B=4)
    state = torch.cuda.get_rng_state()
    for _ in range(3):
        attacked(net, x, y)
    assert sizes_recorded(net) == [4]
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_the_memory_of_recordings_goes_with_their_network():
    x, y = on_the_gpu(B=4)
    allocated = []
    for _ in range(2):  # the first time libraries allocate what they keep
        net = settled().cuda()
        for _ in range(3):
            attacked(net, x, y)
        assert sizes_recorded(net) == [4]
        del net
        gc.collect()
        allocated.append(torch.cuda.memory_allocated())
    assert allocated[1] - allocated[0] < 2**20


def test_a_step_that_cannot_be_recorded_runs_as_it_is_and_the_next_network_is_recorded(same_algorithms, caplog):
    net, (x, y) = settled().cuda(), on_the_gpu(B=4)
    forward = type(net).forward_sequence

    def waits(self, x_seq):
        float(x_seq.sum())  # which no capture allows
        return forward(self, x_seq)

    stream = torch.cuda.current_stream()
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING, "fastsnn"):
        patch.setattr(type(net), "forward_sequence", waits)
        for seed in range(3):
            assert_as_without_graphs(net, x, y, seed=seed)
    assert len(caplog.records) == 1 and "without CUDA graphs" in caplog.text
    assert torch.cuda.current_stream() == stream and sizes_recorded(net) == []
    other = settled().cuda()
    for seed in range(3):
        assert_as_without_graphs(other, x, y, seed=seed)
    assert sizes_recorded(other) == [4]


def test_a_sweep_runs_on_the_device(tmp_path, monkeypatch):
    from fastsnn.cli import main

    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    flags = "--device cuda --width 4 --epochs 1 --images 20 --eps 0 8 --steps 2 --quiet"
    assert main(["sweep", *flags.split(), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "results.csv").exists()
