"""Networks converted from SpikingJelly 2.0, or 0.0.0.0.14, against the networks that they come from."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet, spiking_resnet
from torch import nn

import fastsnn
from fastsnn.attacks import fgsm
from fastsnn.attacks.input_gradient import input_gradient
from fastsnn.models import from_spikingjelly
from fastsnn.models.converted import Converted

from ..spikingjelly_networks import OLD, differentiable, pair, spiking_pair, unsettle


def lively(net, mode="m"):
    """Return their network in eval mode, with statistics and weights that let neurons fire."""
    functional.set_step_mode(net, mode)
    unsettle(net)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(module.weight, 0.0, 2 / module.weight[0].numel() ** 0.5)
    return net.eval()


RECTANGLE = surrogate.Sigmoid(alpha=2.0) if OLD else surrogate.Rect(alpha=0.5)  # 0.0.0.0.14 has none


def cnn():
    """Every surrogate, both neurons, both resets; what a hand-made network is made of."""
    return nn.Sequential(
        *(layer.Conv2d(3, 8, 3, padding=1), layer.BatchNorm2d(8)),
        neuron.IFNode(surrogate_function=surrogate.ATan(alpha=3.0), detach_reset=True),
        layer.MaxPool2d(2),
        *(layer.Conv2d(8, 16, 3, padding=1, bias=False), layer.BatchNorm2d(16)),
        neuron.LIFNode(tau=1.5, surrogate_function=surrogate.Sigmoid(), v_reset=None),
        layer.AvgPool2d(2),
        *(layer.Conv2d(16, 8, 1), neuron.IFNode(surrogate_function=surrogate.PiecewiseQuadratic(), v_reset=-0.1)),
        *(layer.Flatten(), layer.Dropout(0.3), layer.Linear(128, 40)),
        neuron.LIFNode(decay_input=False, v_threshold=0.8, surrogate_function=RECTANGLE),
        layer.VotingLayer(4),
    )


class Custom(nn.Module):
    """A forward() of its own: blocks in a list, a shortcut, containers, a look at a weight and at the mode."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = layer.Conv2d(3, 8, 3, padding=1), layer.BatchNorm2d(8)
        self.sn = neuron.IFNode(surrogate_function=surrogate.ATan())
        self.blocks = nn.ModuleList(self.block() for _ in range(2))
        self.last = neuron.LIFNode(surrogate_function=surrogate.ATan())
        self.fc = layer.Linear(8 * 8 * 8, 10)

    def block(self):
        fires = neuron.IFNode(surrogate_function=surrogate.ATan(), detach_reset=True)
        return nn.Sequential(layer.Conv2d(8, 8, 3, padding=1), layer.BatchNorm2d(8), fires)

    def forward(self, x):
        x = self.sn(self.bn(self.conv(x))) * (self.conv.weight.shape[0] / 8)
        for block in self.blocks:
            x = block(x) + x
        x = nn.functional.avg_pool2d(self.last(x).flatten(0, -4), 2).view(*x.shape[:-2], 8, 8)
        return self.fc(torch.flatten(x, 1 if self.conv.step_mode == "s" else 2))


def sew(depth=18):
    return pair(depth)[1]


def spiking():
    return spiking_pair(18, "avg")[1]


NETWORKS = {"sequential": cnn, "custom": Custom, "sew_resnet18": sew, "spiking_resnet18": spiking}
NETWORKS |= {"sew_resnet34": lambda: sew(34), "sew_resnet50": lambda: sew(50)}


def input_for(name, T=5, B=3):
    size = 32 if "resnet" in name else 16
    return torch.rand(T, B, 3, size, size, generator=torch.Generator().manual_seed(1))


def answers(steps_of, x):
    """Return the outputs of every step and the gradient at x of a weighted sum of them."""
    leaf = x.clone().requires_grad_()
    steps = steps_of(leaf)
    weight = torch.linspace(-1, 1, steps.numel()).view(steps.shape)
    return steps.detach(), torch.autograd.grad(steps, leaf, weight)[0]


def theirs_on(net, mode):
    functional.reset_net(net)
    differentiable(net)
    return net if mode == "m" else lambda x: torch.stack([net(frame) for frame in x])


def assert_same_bits(found, expected, rounded=False):
    """Outputs are equal, and gradients, but that 0.0.0.0.14's TorchScript has another rounding in some: `rounded`."""
    assert torch.equal(found[0], expected[0]) and expected[1].abs().max() > 0
    if OLD and rounded:
        torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-6 * expected[1].abs().max().item())
    else:
        assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("v_reset", [0.0, None, -0.1])
@pytest.mark.parametrize("shape", [surrogate.ATan(), surrogate.Sigmoid(), surrogate.PiecewiseQuadratic(alpha=2.0)])
@pytest.mark.parametrize("kind", ["if", "lif", "lif-whole-input"])
def test_neurons_fire_and_have_the_gradient_of_theirs(kind, shape, v_reset, detach_reset, mode):
    how = {"surrogate_function": shape, "v_reset": v_reset, "detach_reset": detach_reset, "step_mode": mode}
    theirs = neuron.IFNode(**how) if kind == "if" else neuron.LIFNode(1.5, kind == "lif", **how)
    x = torch.randn(6, 2, 300, generator=torch.Generator().manual_seed(2)) + 0.3
    expected = answers(theirs_on(theirs, mode), x)
    with fastsnn.nn.precision("reference"):
        found = answers(from_spikingjelly(nn.Sequential(theirs)).forward_sequence, x)
    sigmoid, moved = isinstance(shape, surrogate.Sigmoid), v_reset == -0.1 and not detach_reset
    assert_same_bits(found, expected, rounded=sigmoid or moved or kind == "lif-whole-input")


@pytest.mark.parametrize("mode", ["m", "s"], ids=["multi-step", "single-step"])
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_logits_and_input_gradients_are_spikingjellys(name, mode):
    torch.manual_seed(0)
    net, x = lively(NETWORKS[name](), mode), input_for(name)
    ours = from_spikingjelly(net)
    expected, expected_gradient = answers(theirs_on(net, mode), x)
    assert expected.std() > 0 and expected_gradient.abs().max() > 0
    weights, theirs = [list(one.parameters()) for one in (ours, net)]
    assert len(weights) == len(theirs) and all(any(torch.equal(a, b) for b in theirs) for a in weights)
    with fastsnn.nn.precision("reference"):
        steps, gradient = answers(ours.forward_sequence, x)
    if mode == "m":
        assert_same_bits((steps, gradient), (expected, expected_gradient), rounded=name == "sequential")
        with torch.no_grad():
            functional.reset_net(net.eval())  # 0.0.0.0.14's neurons have kernels of their own here
            assert torch.equal(steps, net(x))
    ours.requires_grad_(False)
    prepared = fastsnn.engine.prepare(lambda x: ours.forward_sequence(x))
    for found in ((steps, gradient), answers(ours.forward_sequence, x), answers(prepared, x)):
        torch.testing.assert_close(found[0], expected, rtol=1e-3, atol=1e-3)
        assert (found[1] - expected_gradient).norm() <= 1e-3 * expected_gradient.norm()
    torch.testing.assert_close(ours(x), expected.mean(0), rtol=1e-3, atol=1e-3)


def test_their_resnets_become_ours_and_a_sequential_is_computed_layer_by_layer():
    assert type(from_spikingjelly(sew())) is fastsnn.models.SEWResNet
    assert type(from_spikingjelly(spiking())) is fastsnn.models.SpikingResNet
    ours = from_spikingjelly(lively(cnn())).requires_grad_(False)
    assert type(ours) is Converted
    rows = fastsnn.engine.prepare(ours, input_for("sequential")).explain()
    assert {row.name for row in rows} == {f"net.{i}.module" for i in (0, 4, 8, 12)}


def test_settings_of_their_resnets_layers_are_kept():
    theirs = sew_resnet.sew_resnet34(
        cnf="IAND", spiking_neuron=neuron.LIFNode, surrogate_function=surrogate.Sigmoid(), v_reset=None, num_classes=7
    )
    theirs.maxpool = layer.AvgPool2d(3, 2, 1)
    theirs.bn1.eps = 0.1
    theirs.layer2[1].sn1 = neuron.IFNode(v_threshold=0.5, surrogate_function=surrogate.ATan())
    lively(theirs)
    theirs.layer1.train()
    ours, x = from_spikingjelly(theirs), input_for("resnet", T=2, B=2)
    assert type(ours) is fastsnn.models.SEWResNet
    assert [m.training for m in ours.layer1.modules()] == [True] * len([*ours.layer1.modules()])
    expected = answers(theirs_on(theirs, "m"), x)
    with fastsnn.nn.precision("reference"):
        found = answers(ours.forward_sequence, x)
    assert_same_bits(found, expected, rounded=True)


def test_a_resnet_of_theirs_that_was_changed_keeps_its_forward():
    theirs = spiking_resnet.spiking_resnet18(
        spiking_neuron=neuron.IFNode, surrogate_function=surrogate.ATan(), num_classes=7
    )
    theirs.maxpool = nn.Identity()
    theirs.layer4 = nn.Sequential(theirs.layer4[0], layer.BatchNorm2d(512))
    lively(theirs)
    ours, x = from_spikingjelly(theirs), input_for("resnet", T=2, B=2)
    assert type(ours) is Converted
    expected = answers(theirs_on(theirs, "m"), x)
    with fastsnn.nn.precision("reference"):
        found = answers(ours.forward_sequence, x)
    assert all(map(torch.equal, found, expected))


def test_batch_statistics_in_train_mode_are_those_of_their_multi_step_mode():
    torch.manual_seed(0)
    net, x = lively(Custom()), input_for("custom")
    net.train()
    ours = from_spikingjelly(net)
    expected = answers(theirs_on(net, "m"), x)
    with fastsnn.nn.precision("reference"):
        found = answers(ours.forward_sequence, x)
    assert all(map(torch.equal, found, expected))
    assert torch.equal(ours.net.bn.running_mean, net.bn.running_mean)


class InContainers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = layer.SeqToANNContainer(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.second = layer.MultiStepContainer(
            neuron.IFNode(surrogate_function=surrogate.ATan()), layer.Conv2d(8, 8, 3), nn.ReLU()
        )
        fires = neuron.IFNode(surrogate_function=surrogate.ATan())
        self.third = layer.StepModeContainer(True, *([] if OLD else ["m"]), fires)
        self.third.step_mode = "m"
        self.sn, self.fc = neuron.IFNode(surrogate_function=surrogate.ATan(), step_mode="m"), layer.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.sn(self.third(self.second(self.first(x)))).mean((3, 4))).mean(0)


def test_containers_of_single_steps_and_a_mean_over_time_in_the_forward():
    torch.manual_seed(0)
    net, x = InContainers(), input_for("custom")
    unsettle(net.eval())
    ours = from_spikingjelly(net)
    expected = answers(theirs_on(net, "m"), x)
    assert expected[1].abs().max() > 0 and ours(x).shape == (3, 10)
    with fastsnn.nn.precision("reference"):
        found = answers(ours, x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mode", ["m", "s"])
def test_nothing_is_kept_between_calls_and_their_network_is_left_alone(mode):
    net, x = lively(cnn(), mode), input_for("sequential")
    theirs_on(net, mode)(x)
    voltages = [module.v.clone() for module in net.modules() if isinstance(module, neuron.BaseNode)]
    random = torch.get_rng_state()
    ours = from_spikingjelly(net)
    assert torch.equal(torch.get_rng_state(), random)
    first = ours(x)
    ours(1 - x)
    assert torch.equal(ours(x), first)
    assert torch.equal(from_spikingjelly(net)(x), first)
    after = [module.v for module in net.modules() if isinstance(module, neuron.BaseNode)]
    assert all(map(torch.equal, voltages, after))
    with torch.no_grad():
        ours.net[0].weight.zero_()
    assert net[0].weight.abs().max() > 0


def test_flags_and_tied_weights_stay_as_they_are():
    net = lively(Custom())
    net.blocks[1][0].weight = net.blocks[0][0].weight
    net.bn.train()
    net.fc.bias.requires_grad_(False)
    ours = from_spikingjelly(net).net
    assert ours.blocks[1][0].weight is ours.blocks[0][0].weight
    assert ours.bn.module.training and not ours.sn.training and not ours.training
    assert not ours.fc.bias.requires_grad and ours.fc.weight.requires_grad


@pytest.mark.parametrize("mode", ["m", "s"])
def test_attacks_take_a_converted_network_as_it_is(mode):
    torch.manual_seed(0)
    net, x, y = lively(cnn(), mode), input_for("sequential"), torch.tensor([1, 2, 3])
    ours = from_spikingjelly(net)
    for bn in ("frozen", "batch", "drift"):
        adv = fgsm(ours, x, y, eps=0.1, bn=bn)
        assert 0 < (adv - x).abs().max() <= 0.1
    with input_gradient(from_spikingjelly(net)) as gradient:
        assert gradient.independent
        whole = gradient(x, y)
        assert torch.equal(gradient(x[:, 1:2].contiguous(), y[1:2]), whole[:, 1:2])


def test_dropout_drops_the_same_units_at_every_step():
    torch.manual_seed(0)
    for theirs, shape in ((layer.Dropout(0.25), (3, 4, 1000)), (layer.Dropout2d(0.25), (3, 4, 200, 5, 5))):
        dropout = from_spikingjelly(nn.Sequential(theirs, neuron.IFNode(surrogate_function=surrogate.ATan()))).net[0]
        out = dropout.train().module(torch.ones(shape))
        assert torch.equal(out[0], out[1]) and torch.equal(out[0], out[2])
        assert torch.equal(out.unique(), torch.tensor([0, 1 / 0.75]))
        assert 0.2 < (out == 0).float().mean() < 0.3
        if len(shape) > 3:
            assert torch.equal(out.amax((3, 4)), out.amin((3, 4)))
        assert torch.equal(dropout.eval().module(torch.ones(shape)), torch.ones(shape))


def test_hooks_on_a_part_are_called():
    net, x = lively(cnn()), input_for("sequential")
    ours, seen = from_spikingjelly(net), []
    expected = ours(x)
    ours.net[1].register_forward_hook(lambda module, inputs, out: seen.append(tuple(out.shape)))
    torch.testing.assert_close(ours(x), expected)
    assert seen == [(5, 3, 8, 16, 16)]


class OwnConv(layer.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (neuron.ParametricLIFNode(), r"1 \(ParametricLIFNode\): nothing here computes it"),
        (layer.SynapseFilter(), r"1 \(SynapseFilter\): nothing"),
        (OwnConv(3, 3, 1), r"1 \(OwnConv\): a class of its own, derived from SpikingJelly's Conv2d"),
        (
            neuron.IFNode(surrogate_function=surrogate.SoftSign()),
            r"1 \(IFNode\): its surrogate is SoftSign, expected one of ATan, Sigmoid, PiecewiseQuadratic, Rect",
        ),
        (
            neuron.IFNode(surrogate_function=surrogate.ATan(spiking=False)),
            r"1 \(IFNode\): its surrogate does not spike",
        ),
        (neuron.IFNode(store_v_seq=True), r"1 \(IFNode\): it is to store its voltages"),
        (neuron.LIFNode(v_threshold=float("inf")), r"1 \(LIFNode\): v_threshold is inf"),
        (layer.MaxPool2d(2, return_indices=True), r"1 \(MaxPool2d\): it returns indices as well"),
        (
            layer.SeqToANNContainer(neuron.IFNode()),
            r"1 \(SeqToANNContainer\): it takes all steps of its neurons for one",
        ),
        (neuron.IFNode(step_mode="m"), "0 is in step_mode 's' and 1 in 'm'"),
    ],
)
def test_what_cannot_be_converted_is_named(part, message):
    with pytest.raises(ValueError, match=f"net cannot be converted: {message}"):
        from_spikingjelly(nn.Sequential(neuron.IFNode(), part, layer.Linear(3, 3)))


def test_all_that_cannot_be_converted_is_named_at_once():
    net = nn.Sequential(neuron.ParametricLIFNode(), nn.ModuleDict({"a": layer.Delay(1)}))
    with pytest.raises(ValueError, match=r"0 \(ParametricLIFNode\): .*; 1.a \(Delay\): nothing here computes it\.$"):
        from_spikingjelly(net)
    with pytest.raises(ValueError, match="net cannot be converted: it holds no IFNode or LIFNode"):
        from_spikingjelly(nn.Sequential(layer.Linear(3, 3), nn.ReLU()))
    with pytest.raises(TypeError, match="net is of type str"):
        from_spikingjelly("net")


def test_neurons_in_two_places_are_named():
    shared = neuron.IFNode()
    with pytest.raises(ValueError, match=r"1\.0 are neurons that stand in several places"):
        from_spikingjelly(nn.Sequential(nn.Sequential(shared), nn.Sequential(shared)))
    with pytest.raises(ValueError, match="2 are neurons that stand in several places"):
        from_spikingjelly(nn.Sequential(shared, layer.Linear(3, 3), shared))


class Direct(nn.Module):
    """It takes images, repeats them, and may return what it likes."""

    def __init__(self, last):
        super().__init__()
        self.fc, self.sn, self.last = layer.Linear(12, 5), neuron.IFNode(surrogate_function=surrogate.ATan()), last

    def forward(self, images):
        x = images.flatten(1).unsqueeze(0).repeat(6, 1, 1)
        return self.last(self.sn(self.fc(x)))


def test_a_forward_that_repeats_images_takes_images():
    torch.manual_seed(0)
    images, every_step = torch.rand(4, 3, 2, 2), lively(Direct(nn.Identity()))
    expected = theirs_on(every_step, "m")(images)
    assert expected.std() > 0
    assert torch.equal(from_spikingjelly(every_step)(images), expected.mean(0))
    mean = Mean()
    mean_over_time = lively(Direct(mean))
    mean_over_time.load_state_dict(every_step.state_dict())
    assert torch.equal(from_spikingjelly(mean_over_time)(images), expected.mean(0))
    mean.axes = (0, 1, 2)
    with pytest.raises(ValueError, match=r"net returns \[\] for \[4, 3, 2, 2\], expected \[T, B, classes\]"):
        from_spikingjelly(mean_over_time)(images)


class Mean(nn.Module):
    axes = 0

    def forward(self, x):
        return x.mean(self.axes)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = nn.ModuleDict({"sn": neuron.IFNode(step_mode="m")})

    def forward(self, x):
        return self.part["sn"](self.part["sn"](x))


def test_a_forward_that_calls_neurons_twice_is_refused_when_it_runs():
    ours = from_spikingjelly(Twice())
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"The neurons 'part\.sn' are called twice in one forward pass"):
            ours(torch.rand(2, 3, 4))


def test_images_without_time_are_refused_in_single_step_mode():
    ours = from_spikingjelly(lively(cnn(), "s"))
    with pytest.raises(
        ValueError, match=r"x_seq has shape \[3, 3, 16, 16\], expected \[T, B, C, H, W\]: time comes first"
    ):
        ours(torch.rand(3, 3, 16, 16))


def test_a_converted_network_needs_no_spikingjelly_and_can_be_saved(tmp_path):
    ours, x = from_spikingjelly(lively(cnn())), input_for("sequential")
    assert torch.equal(copy.deepcopy(ours)(x), ours(x))
    torch.save((ours, x, ours(x)), tmp_path / "net.pt")
    code = (
        "import sys; sys.modules['spikingjelly'] = None\n"  # importing it raises
        "import torch, fastsnn.models\n"
        f"net, x, logits = torch.load({str(tmp_path / 'net.pt')!r}, weights_only=False)\n"
        "assert torch.equal(net(x), logits)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
