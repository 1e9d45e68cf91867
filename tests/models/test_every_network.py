"""What all networks have in common: the engine, the attacks, sweeps and training take them as they are."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn import models
from fastsnn.attacks import fgsm, pgd
from fastsnn.attacks.input_gradient import input_gradient
from fastsnn.engine import prepare, prepared
from fastsnn.nn.layers import norm_fire, product
from fastsnn.sweep import Ledger, Settings, sweep
from fastsnn.sweep import prepare as prepare_folder
from fastsnn.sweep.plan import networks
from fastsnn.sweep.progress import Silent

from ..spikingjelly_networks import batch
from ..sweep import tiny

NETWORKS = {
    "sew": ("sew_resnet18", {"stem": "cifar"}),
    "spiking": ("spiking_resnet18", {"pool": "max"}),
    "vgg": ("vgg11", {"pool": "max", "image_size": 16}),
    "wrn": ("wrn16_4", {}),
}
SIZE, T = 16, 4


@pytest.fixture(scope="module", params=NETWORKS)
def net(request):
    """A network whose running statistics fit its input, and whose neurons do fire."""
    torch.manual_seed(0)
    name, options = NETWORKS[request.param]
    net = models.BUILDERS[name](width=8, **options).train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, 0.2, 0.6)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=2 / module.in_features**0.5)
    with torch.no_grad():
        for seed in range(10):
            net(batch(T, 8, SIZE, seed)[0])
    return net.eval()


@pytest.mark.parametrize("deterministic", [True, False], ids=["by rule", "measured"])
def test_the_engine_gives_the_same_answers_and_explains_every_product(net, deterministic):
    x, _ = batch(T, 3, SIZE)
    prepared = prepare(net, x, deterministic=deterministic)
    with torch.no_grad():
        torch.testing.assert_close(prepared(x), net(x), rtol=1e-4, atol=1e-4)
    products = {name for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    logits = {name for name, m in net.named_modules() if isinstance(m, nn.Linear) and m.out_features == 10}
    assert {row.name for row in prepared.explain()} == products - logits
    assert all(row.why and row.milliseconds > 0 for row in prepared.explain())


@pytest.mark.parametrize("bn", ["frozen", "batch", "drift"])
@pytest.mark.parametrize(("precision", "agreement"), [("reference", 1), ("fp32", 0.99), ("fast", 0.9)])
def test_attacks_follow_the_gradient_of_plain_modules_in_every_mode(net, bn, precision, agreement, monkeypatch):
    x, y = batch(T, 4, SIZE)
    before = copy.deepcopy(net.state_dict())
    for module in net.modules():
        module.training = bn != "frozen" and isinstance(module, nn.BatchNorm2d)
    leaf = x.clone().requires_grad_()
    with fastsnn.nn.precision("reference"):
        nn.functional.cross_entropy(net(leaf), y, reduction="sum").backward()
    assert (leaf.grad != 0).float().mean() > 0.2
    net.zero_grad()
    net.load_state_dict(before)
    net.eval()
    with monkeypatch.context() as patch:
        if (
            precision == "fast"
        ):  # one spike that differs turns half of a sample's gradient: tests/engine/test_fast.py counts
            patch.setattr(prepared, "forward_dtype", prepared.product_dtype)
        adv = fgsm(net, x, y, eps=0.1, bn=bn, precision=precision)
    assert ((adv - x).sign() == (x + leaf.grad.sign()).clamp(0, 1).sub(x).sign()).float().mean() >= agreement
    net.load_state_dict(before)
    adv = pgd(net, x, y, eps=0.1, alpha=0.05, steps=2, bn=bn, precision=precision)
    assert 0 < (adv - x).abs().max() <= 0.1 and adv.min() >= 0 and adv.max() <= 1
    moved = any(not torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert moved == (bn == "drift")
    net.load_state_dict(before)
    assert not any(module.training for module in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_every_layer_in_the_engine_fires_the_same_spikes_and_has_the_same_gradient(net, batch_statistics):
    """Feed each layer what the plain network feeds it: a spike that turns would change all layers behind it."""
    for module in net.modules():
        module.training = batch_statistics and isinstance(module, nn.BatchNorm2d)
    prepared, layers = prepare(net), []

    def compare(conv, norm, neuron, x_seq, residual, junction, spikes):
        def run(compute):
            leaf = x_seq.detach().requires_grad_()
            out = compute(leaf)
            return out, torch.autograd.grad(out, leaf, torch.linspace(-1, 1, out.numel()).view(out.shape))[0]

        ours, gradient = run(lambda x: prepared._compute(conv, norm, neuron, x, residual, junction, spikes))
        theirs, expected = run(lambda x: norm_fire(norm, neuron, product(conv, x), residual, junction))
        if neuron is None:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(ours, theirs)
        assert (gradient - expected).norm() <= 1e-5 * expected.norm()
        layers.append(conv)
        return theirs

    state = copy.deepcopy(net.state_dict())
    net.requires_grad_(False)
    with fastsnn.nn.in_force.computed_by(compare):
        net(batch(T, 4, SIZE)[0])
    net.requires_grad_(True).load_state_dict(state)
    net.eval()
    assert len(layers) == len(prepared.explain()) > 5


def test_a_samples_gradient_has_the_same_bits_in_any_batch(net):
    x, y = batch(10, 7, SIZE)

    def gradient_of(chosen):
        with input_gradient(net) as gradient:
            assert gradient.independent
            return gradient(x[:, chosen].contiguous(), y[chosen])

    whole = gradient_of(list(range(7)))
    for chosen in ([0], [6, 2, 0]):
        assert torch.equal(gradient_of(chosen), whole[:, chosen])


def test_no_state_is_kept_between_calls(net):
    x, _ = batch(T, 2, SIZE)
    first = net(x)
    net(1 - x)
    assert torch.equal(net(x), first)


def test_every_builder_takes_its_poolings():
    assert set(models.POOLINGS) == set(models.BUILDERS)
    for name, poolings in models.POOLINGS.items():
        for pool in poolings:
            with torch.device("meta"):
                assert isinstance(models.BUILDERS[name](pool=pool, num_classes=3, width=4), nn.Module)


def test_a_sweep_trains_each_network_with_the_poolings_that_it_has():
    settings = Settings(models=("vgg11", "wrn16_4"))
    assert [(network.model, network.pool) for network in networks(settings)] == [
        ("vgg11", "max"),
        ("vgg11", "avg"),
        ("wrn16_4", "avg"),
    ]
    with pytest.raises(ValueError, match=r"pools is \('max',\), but wrn16_4 has avg pooling only"):
        Settings(models=("vgg11", "wrn16_4"), pools=("max",))


def test_sweeps_train_and_attack_networks_by_name(monkeypatch, tmp_path):
    monkeypatch.setitem(fastsnn.data.DATASETS, "few", tiny.load)
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    settings = {**tiny.SETTINGS, "eps": (0, 16), "attacks": ("pgd",), "pools": ("avg",)}
    settings = Settings(models=("spiking_resnet18", "vgg11", "wrn16_4"), surrogates=("triangle:1",), **settings)
    prepare_folder(settings, tmp_path / "run")
    list(sweep(settings, tmp_path / "run", Silent()))
    with Ledger.read(tmp_path / "run") as ledger:
        rows = ledger.results()
    assert [(row["model"], row["pool"], row["eps_255"]) for row in rows] == [
        (model, "avg", eps) for model in settings.models for eps in settings.eps
    ]
    assert all(row["images"] == 12 for row in rows)
    assert {path.suffix for path in (tmp_path / "run").iterdir()} >= {".csv", ".png", ".sqlite"}


@pytest.mark.parametrize("name", [name for name, _ in NETWORKS.values()])
def test_an_option_that_a_network_does_not_have_is_named(name):
    with pytest.raises(TypeError, match=r"^\w+ has no option 'v_treshold'; did you mean 'v_threshold'\?$"):
        models.BUILDERS[name](v_treshold=2.0)
    with pytest.raises(TypeError, match="has no option 'colour'; its neurons take 'v_threshold', 'v_reset'"):
        models.BUILDERS[name](colour="red")
