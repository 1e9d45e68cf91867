from __future__ import annotations

import copy
import gc
import io
import re
import weakref

import pytest
import torch

import fastsnn
from fastsnn import engine
from fastsnn.engine import prepare
from fastsnn.nn.layers import norm_fire, product
from fastsnn.ops import library

from ..spikingjelly_networks import batch

WITH_KERNELS = set(library.instruction_sets()) - {"baseline"}


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = fastsnn.models.sew_resnet18(width=8).train()
    for seed in range(10):
        net(batch(B=8, seed=seed)[0])
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("deterministic", [True, False], ids=["by rule", "measured"])
@pytest.mark.parametrize("pool", ["max", "avg"])
@pytest.mark.parametrize("depth", [18, 50])
def test_every_layer_on_the_same_spikes_differs_in_at_most_one_place_in_100000(depth, pool, deterministic):
    """Feed both forms of each layer what the plain network feeds it, and compare the spikes it fires."""
    torch.manual_seed(0)
    net = fastsnn.models.BUILDERS[f"sew_resnet{depth}"](pool, width=16).train()
    for seed in range(10):
        net(batch(B=8, seed=seed)[0])
    net.eval().requires_grad_(False)
    prepared, fired = prepare(net, deterministic=deterministic), [0, 0]

    def compare(conv, norm, neuron, x_seq, residual, junction, dtype):
        ours = prepared._compute(conv, norm, neuron, x_seq, residual, junction, dtype)
        theirs = norm_fire(norm, neuron, product(conv, x_seq), residual, junction)
        fired[0] += int((ours != theirs).sum())
        fired[1] += theirs.numel()
        return theirs

    with fastsnn.nn.in_force.computed_by(compare), torch.no_grad():
        net(batch(T=4, B=16)[0])
    assert fired[1] > 5e5
    assert fired[0] <= 1e-5 * fired[1], f"{fired[0]} of {fired[1]} spikes differ"


# What was chosen


def convolutions(net):
    return [name for name, module in net.named_modules() if isinstance(module, torch.nn.Conv2d)]


def test_explain_has_a_row_for_every_layer(net):
    prepared = prepare(net)
    assert prepared.explain() == []
    prepared(batch()[0])
    rows = prepared.explain()
    assert sorted(row.name for row in rows) == sorted(convolutions(net))
    stem, others = ("windows GEMM", "Winograd") if WITH_KERNELS else ("space to depth", "channels last")
    assert rows[0][:4] == ("conv1", (3, 32, 32), "float32", stem)
    assert {row.form for row in rows} == {stem, others, "pointwise GEMM", "dense GEMM"}
    assert all(row.why and row.milliseconds > 0 for row in rows)


def test_explain_prints_a_table_with_a_total(net):
    prepared = prepare(net)
    prepared(batch()[0])
    rows = prepared.explain()
    head, *lines, total = str(rows).splitlines()
    assert head.split() == ["layer", "input", "type", "form", "ms", "why"]
    assert [line.split()[:3] for line in lines] == [[r.name, "x".join(map(str, r.shape)), r.dtype] for r in rows]
    milliseconds = float(total.split()[1])
    assert total.startswith("total") and milliseconds == pytest.approx(sum(r.milliseconds for r in rows), abs=0.01)
    assert str(prepare(net).explain()).splitlines()[1].startswith("total")


def test_a_bare_callable_is_explained_by_class(net):
    prepared = prepare(lambda x: net(x))
    prepared(batch()[0])
    assert {row.name for row in prepared.explain()} == {"Conv2d"}


def test_measured_forms_give_close_answers_and_say_what_they_beat(net):
    x = batch()[0]
    prepared = prepare(net, deterministic=False)
    torch.testing.assert_close(prepared(x), net(x))
    rows = prepared.explain()
    measured = [row for row in rows if row.why.startswith("fastest; ")]
    assert len(rows) == len(convolutions(net)) and measured
    assert all(re.fullmatch(r"fastest; ([\w ]+ \d+\.\d\d(, )?)+ ms", row.why) for row in measured)


def test_measuring_leaves_torchs_random_numbers_alone(net):
    x, state = batch()[0], torch.get_rng_state()
    prepared = prepare(net, x, deterministic=False)
    prepared.explain()
    assert torch.equal(torch.get_rng_state(), state)


# An example


@pytest.mark.parametrize("around", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_an_example_chooses_all_forms_at_once(net, around):
    with around():
        prepared = prepare(net.requires_grad_(True), batch()[0])
    assert sorted(row.name for row in prepared.explain()) == sorted(convolutions(net))
    chosen = dict(prepared._chosen)
    x = batch(seed=2)[0].requires_grad_()
    net.requires_grad_(False)
    prepared(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert prepared._chosen.items() == chosen.items()


@pytest.mark.parametrize("bn", ["frozen", "batch", "drift", "as it is"])
def test_an_example_leaves_gradients_statistics_and_flags_alone(net, bn):
    net.requires_grad_(True)
    net.fc.bias.requires_grad = False
    net.layer1.train()
    state = copy.deepcopy(net.state_dict())
    flags = [module.training for module in net.modules()], [p.requires_grad for p in net.parameters()]
    x = batch()[0]
    if bn == "as it is":  # a bare callable, whose norms are its own affair
        flags = [False] * len(flags[0]), flags[1]
        net.eval()
        prepare(lambda x: net(x), x)
    else:
        prepare(net, x, bn=bn)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters()) and not x.requires_grad
    assert flags == ([module.training for module in net.modules()], [p.requires_grad for p in net.parameters()])


def test_an_example_is_run_in_its_precision(net):
    rows = prepare(net, batch()[0], precision="fast").explain()
    stem, others = {rows[0].dtype}, {row.dtype for row in rows[1:]}
    assert (stem, others) == (({"float32/bfloat16"}, {"int16/bfloat16"}) if library.has_bf16() else ({"float32"},) * 2)
    assert prepare(net, batch()[0], precision="reference").explain() == []


def test_a_bad_example_or_mode_is_refused(net):
    with pytest.raises(TypeError, match="example is of type str"):
        prepare(net, "x")
    with pytest.raises(ValueError, match="bn is 'thawed'"):
        prepare(net, batch()[0], bn="thawed")
    with pytest.raises(ValueError, match="precision is 'fp8'"):
        prepare(net, batch()[0], precision="fp8")


# What changes


def test_changed_weights_are_noticed(net):
    prepared, x = prepare(net), batch()[0]
    before = prepared(x)
    with torch.no_grad():
        net.layer4[1].conv2.weight.mul_(-1)
    torch.testing.assert_close(prepared(x), net(x))
    net.load_state_dict({name: value * 2 for name, value in net.state_dict().items()})
    torch.testing.assert_close(prepared(x), net(x))
    net.conv1.weight = torch.nn.Parameter(torch.randn_like(net.conv1.weight), requires_grad=False)
    torch.testing.assert_close(prepared(x), net(x))
    assert not torch.equal(prepared(x), before)


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
def test_a_changed_norm_is_noticed(net, name):
    prepared, x = prepare(net), batch()[0]
    before = prepared(x)
    with torch.no_grad():
        getattr(net.bn1, name).mul_(3).add_(0.5)
    assert not torch.equal(prepared(x), before)
    torch.testing.assert_close(prepared(x), net(x))
    net.bn1 = torch.nn.BatchNorm2d(8).eval().requires_grad_(False)
    torch.testing.assert_close(prepared(x), net(x))


def test_changed_settings_are_noticed(net):
    prepared, x = prepare(net), batch()[0]
    logits = [prepared(x)]
    net.bn1.eps = 5.0
    logits.append(prepared(x))
    torch.testing.assert_close(logits[-1], net(x))
    net.layer1[0].conv1.padding = net.layer1[0].conv1.dilation = (2, 2)
    logits.append(prepared(x))
    torch.testing.assert_close(logits[-1], net(x))
    assert not torch.equal(logits[0], logits[1]) and not torch.equal(logits[1], logits[2])


def test_a_replaced_neuron_is_noticed(net):
    prepared, x = prepare(net), batch()[0]
    before = prepared(x)
    for neuron in (fastsnn.nn.IFNode(v_threshold=0.1), fastsnn.nn.LIFNode(v_threshold=0.1)):
        net.sn1 = neuron
        assert not torch.equal(prepared(x), before)
        torch.testing.assert_close(prepared(x), net(x))
        before = prepared(x)
    net.sn1.neuron = net.sn1.neuron._replace(v_threshold=0.7)
    assert not torch.equal(prepared(x), before)
    torch.testing.assert_close(prepared(x), net(x))


def test_weights_made_in_inference_mode_are_left_to_the_layers():
    with torch.inference_mode():
        net = fastsnn.models.sew_resnet18(width=4).eval().requires_grad_(False)
    x, prepared = batch()[0], prepare(net)
    assert torch.equal(prepared(x), net(x)) and prepared.explain() == []


def test_forms_chosen_in_inference_mode_serve_a_later_gradient(net):
    prepared, x = prepare(net), batch()[0]
    with torch.inference_mode():
        prepared(x)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(prepared(x).sum(), x)
    (expected,) = torch.autograd.grad(prepare(net)(x).sum(), x)
    assert torch.equal(gradient, expected)


def test_functional_transforms_go_through_the_plain_layers(net):
    x = batch()[0]
    prepared = prepare(net)
    gradient = torch.func.grad(lambda x: prepared(x).sum())(x)
    leaf = x.clone().requires_grad_()
    assert torch.equal(gradient, torch.autograd.grad(net(leaf).sum(), leaf)[0])
    assert prepared.explain() == []


def test_weights_that_need_gradients_get_them(net):
    net.requires_grad_(True)
    prepared = prepare(net)
    prepared(batch()[0]).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert prepared.explain() == []
    with torch.no_grad():
        prepared(batch()[0])
    assert len(prepared.explain()) == 20


@pytest.mark.parametrize("part", ["conv1.weight", "bn1.weight", "bn1.bias"])
def test_one_tensor_that_needs_a_gradient_gets_it_and_spares_the_other_layers(net, part):
    wanted = dict(net.named_parameters())[part].requires_grad_()
    prepared = prepare(net)
    prepared(batch()[0]).sum().backward()
    assert wanted.grad.abs().sum() > 0
    assert sorted(row.name for row in prepared.explain()) == sorted(set(convolutions(net)) - {"conv1"})


def test_reference_precision_is_left_alone(net):
    x, prepared = batch()[0], prepare(net)
    with fastsnn.nn.precision("reference"):
        assert torch.equal(prepared(x), net(x))
    assert prepared.explain() == []


@pytest.mark.parametrize("part", ["conv1", "bn1", "sn1"])
def test_a_watched_layer_is_called_as_such(net, part):
    x, calls, prepared = batch()[0], [], prepare(net)
    handle = getattr(net.layer1[0], part).register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(prepared(x), net(x))
    assert calls == [1, 1]
    assert sorted(row.name for row in prepared.explain()) == sorted(set(convolutions(net)) - {"layer1.0.conv1"})
    handle.remove()
    prepared(x)
    assert len(prepared.explain()) == 20


def test_under_a_hook_on_all_modules_every_layer_is_called_as_such(net):
    called, prepared = [], prepare(net)
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: called.append(type(module)))
    try:
        prepared(batch()[0])
    finally:
        handle.remove()
    assert called.count(torch.nn.Conv2d) == called.count(fastsnn.nn.IFNode) == 20
    assert prepared.explain() == []


def test_rearranged_weights_are_kept_between_calls_until_they_are_found_to_have_changed(net):
    prepared, x = prepare(net), batch()[0]
    prepared(x)
    layers = [*prepared.layers().values()]
    prepared(x)
    assert len(layers) == 20 and [*prepared.layers().values()] == layers
    assert [*prepared.forget_changed().layers().values()] == layers
    net.layer1[0].conv1.weight.data.mul_(-1)  # which torch does not count
    net.layer2[0].bn1.running_mean.data.add_(1)
    left = {row.name for row in prepared.forget_changed().explain()}
    assert len(left) == 18 and not left & {"layer1.0.conv1", "layer2.0.conv1"}


def test_a_network_goes_when_its_last_name_goes():
    net = fastsnn.models.sew_resnet18(width=4).eval().requires_grad_(False)
    fastsnn.attacks.fgsm(net, *batch(), eps=0.1)
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None


def change_by_data(net):
    net.layer1[0].conv1.weight.data.mul_(-1)


def change_by_fused_adam(net):
    net.requires_grad_(True)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1, fused=True)
    net(batch()[0]).sum().backward()
    optimizer.step()
    net.requires_grad_(False)


@pytest.mark.parametrize("change", [change_by_data, change_by_fused_adam])
def test_attacks_see_weights_that_changed_behind_torchs_back(net, change):
    x, y = batch(B=4)
    prepared = prepare(net)
    fastsnn.attacks.fgsm(prepared, x, y, eps=0.05)
    change(net)
    expected = fastsnn.attacks.fgsm(copy.deepcopy(net), x, y, eps=0.05)
    assert torch.equal(fastsnn.attacks.fgsm(net, x, y, eps=0.05), expected)
    assert torch.equal(fastsnn.attacks.fgsm(prepared, x, y, eps=0.05), expected)


class Standardised(torch.nn.Conv2d):
    def forward(self, x):
        return torch.nn.functional.conv2d(x, self.weight - self.weight.mean(), None, self.stride, self.padding)


def test_a_subclass_of_conv2d_is_called_as_such(net):
    conv = net.layer1[0].conv1
    net.layer1[0].conv1 = Standardised(8, 8, 3, padding=1, bias=False)
    net.layer1[0].conv1.weight = conv.weight
    with torch.no_grad():
        logits = prepare(net)(batch()[0])
        with fastsnn.nn.precision("fast"):
            assert prepare(net)(batch()[0]).isfinite().all()
        conv.weight.sub_(conv.weight.mean())
        net.layer1[0].conv1 = conv
        torch.testing.assert_close(logits, prepare(net)(batch()[0]))


class Silent(fastsnn.nn.IFNode):
    def forward(self, x_seq, **how):
        return torch.zeros_like(x_seq)


def test_a_subclass_of_the_neuron_is_called_as_such(net):
    net.sn1, x = Silent(), batch()[0]
    prepared = prepare(net)
    assert torch.equal(prepared(x), prepared(torch.ones_like(x)))
    assert "conv1" in {row.name for row in prepared.explain()}  # the product in front of it is the engine's


def test_a_prepared_network_can_be_copied_and_saved(net):
    x = batch()[0]
    expected = prepare(net)(x)
    assert torch.equal(prepare(copy.deepcopy(net))(x), expected)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    assert torch.equal(prepare(torch.load(file, weights_only=False))(x), expected)


# Attacks


@pytest.mark.parametrize("bn", ["frozen", "batch", "drift"])
def test_attacks_with_and_without_the_engine_agree(net, bn):
    x, y = batch(B=4)
    state = copy.deepcopy(net.state_dict())
    with_engine = fastsnn.attacks.fgsm(net, x, y, eps=0.05, bn=bn)
    net.load_state_dict(state)
    without = fastsnn.attacks.fgsm(net, x, y, eps=0.05, bn=bn, engine=None)
    assert (with_engine == without).float().mean() > 0.99
    net.load_state_dict(state)
    assert torch.equal(fastsnn.attacks.fgsm(prepare(net), x, y, eps=0.05, bn=bn), with_engine)


def test_an_unknown_engine_is_refused(net):
    with pytest.raises(ValueError, match="engine is 'turbo'"):
        fastsnn.attacks.fgsm(net, *batch(), eps=0.05, engine="turbo")


def test_attacks_remember_forms_while_the_weights_are_the_same(net, monkeypatch):
    built = []
    choose = engine.Prepared._choose
    monkeypatch.setattr(engine.Prepared, "_choose", lambda self, *how, **k: built.append(1) or choose(self, *how, **k))
    x, y = batch(B=4)
    first = fastsnn.attacks.fgsm(net, x, y, eps=0.05)
    assert len(built) == 20
    assert torch.equal(fastsnn.attacks.fgsm(net, x, y, eps=0.05), first) and len(built) == 20
    net.layer1[0].conv1.weight.data.mul_(-1)  # which torch does not count
    fastsnn.attacks.fgsm(net, x, y, eps=0.05)
    assert len(built) == 21


def test_an_attackers_surrogate_rebuilds_no_layer(net):
    """Scores are taken with the network's own surrogate, attacks with another: both layers are kept, of one form."""
    (x, y), prepared = batch(B=4), engine.prepared.remembered(net)
    for _ in range(2):
        for surrogate in ("triangle:1", None):
            fastsnn.attacks.pgd(net, x, y, eps=0.02, alpha=0.01, steps=1, surrogate=surrogate, random_start=False)
        found = dict(prepared.layers())
    fastsnn.attacks.pgd(net, x, y, eps=0.02, alpha=0.01, steps=1, surrogate="triangle:1", random_start=False)
    again = prepared.layers()
    assert len(found) == 40 and all(again[key] is layer for key, layer in found.items())
    assert len({id(layer.form) for layer in found.values()}) == 20
