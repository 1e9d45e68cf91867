from __future__ import annotations

import copy
import gc
import io
import weakref

import pytest
import torch

import fastsnn
from fastsnn.engine import prepare

from ..spikingjelly_networks import batch


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = fastsnn.models.sew_resnet18(width=8).train()
    for seed in range(10):
        net(batch(B=8, seed=seed)[0])
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("pool", ["max", "avg"])
@pytest.mark.parametrize("depth", [18, 50])
def test_every_layer_on_the_same_spikes_differs_in_at_most_one_place_in_100000(depth, pool):
    """Feed both forms of each layer what the plain network feeds it, and compare the spikes it fires."""
    torch.manual_seed(0)
    net = fastsnn.models.BUILDERS[f"sew_resnet{depth}"](pool, width=16).train()
    for seed in range(10):
        net(batch(B=8, seed=seed)[0])
    net.eval().requires_grad_(False)
    prepared, fired = prepare(net), [0, 0]

    def compare(conv, frames, dtype):
        norm = _norm_behind(net, conv)
        form = prepared._choose(conv, frames, dtype)
        ours, theirs = (norm(product).unflatten(0, (4, -1)) for product in (form(frames), conv(frames)))
        a, b = fastsnn.functional.multistep_if(ours), fastsnn.functional.multistep_if(theirs)
        fired[0] += int((a != b).sum())
        fired[1] += a.numel()

    with fastsnn.nn.forms.chosen_by(compare), torch.no_grad():
        net(batch(T=4, B=16)[0])
    assert fired[1] > 5e5
    assert fired[0] <= 1e-5 * fired[1], f"{fired[0]} of {fired[1]} spikes differ"


def _norm_behind(net, conv):
    modules = list(net.modules())
    return modules[modules.index(conv) + 1]


def test_explain_has_a_row_for_every_product(net):
    prepared = prepare(net)
    prepared(batch()[0])
    rows = prepared.explain()
    convolutions = [name for name, module in net.named_modules() if isinstance(module, torch.nn.Conv2d)]
    assert sorted(row.name for row in rows) == sorted(convolutions)
    assert rows[0][:4] == ("conv1", (3, 32, 32), "float32", "space to depth")
    assert {row.form for row in rows} == {"space to depth", "channels last", "pointwise GEMM", "dense GEMM"}
    assert all(row.why for row in rows)


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


def test_weights_that_need_gradients_get_them(net):
    net.requires_grad_(True)
    prepared = prepare(net)
    prepared(batch()[0]).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert prepared.explain() == []
    with torch.no_grad():
        prepared(batch()[0])
    assert len(prepared.explain()) == 20


def test_reference_precision_is_left_alone(net):
    x = batch()[0]
    with fastsnn.nn.precision("reference"):
        assert torch.equal(prepare(net)(x), net(x))
    assert prepare(net).explain() == []


def test_a_watched_layer_is_called_as_such(net):
    x, calls = batch()[0], []
    net.layer1[0].conv1.register_forward_hook(lambda *_: calls.append(1))
    prepare(net)(x)
    assert calls == [1] and "layer1.0.conv1" not in {row.name for row in prepare(net).explain()}


def test_rearranged_weights_are_kept_between_calls_and_forgotten_on_request(net):
    prepared, x = prepare(net), batch()[0]
    prepared(x)
    forms = [chosen.form for chosen in prepared._chosen.values()]
    prepared(x)
    assert [chosen.form for chosen in prepared._chosen.values()] == forms
    assert prepared.forget().explain() == []


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


def test_a_prepared_network_can_be_copied_and_saved(net):
    x = batch()[0]
    expected = prepare(net)(x)
    assert torch.equal(prepare(copy.deepcopy(net))(x), expected)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    assert torch.equal(prepare(torch.load(file, weights_only=False))(x), expected)


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
