"""Batch norm in a spiking layer, running statistics included, against torch's own modules."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fastsnn.nn import IFNode, LIFNode, over_time, spiking_layer
from fastsnn.nn.layers import join, norm_fire
from fastsnn.nn.norms import follow, running_affine, uses_batch_statistics
from fastsnn.ops.integrate_fire import Neuron
from fastsnn.ops.norm_fire import fire

JUNCTIONS = (None, "add", "and", "iand", "and_not")
NEURONS = {
    "IF": IFNode(),
    "LIF": LIFNode(v_threshold=0.5),
    "soft reset": IFNode(v_reset=None, surrogate="sigmoid", detach_reset=False),
}
NORMS = {
    "default": {},
    "momentum 0.3": {"momentum": 0.3},
    "momentum 0": {"momentum": 0.0},
    "momentum 1": {"momentum": 1.0},
    "cumulative": {"momentum": None},
    "no statistics": {"track_running_stats": False},
    "no affine": {"affine": False},
    "neither": {"affine": False, "track_running_stats": False},
    "eps 0.1": {"eps": 0.1},
}
every_norm = pytest.mark.parametrize("options", NORMS.values(), ids=NORMS.keys())


def norm_of(channels=7, **options):
    """A batch norm in training mode whose parameters are not the initial ones."""
    norm = nn.BatchNorm2d(channels, **options)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return norm


def batches(n=4, shape=(3, 2, 7, 6, 5)):
    return [torch.randn(shape) * (1 + i) + i for i in range(n)]


def fired(norm, x_seq):
    """The statistics that `follow` takes."""
    return fire(x_seq, norm.weight, norm.bias, norm.eps, Neuron())[1]


def assert_same_statistics(norm, expected):
    """Running statistics 1e-6 apart, and the same count of batches."""
    assert norm.state_dict().keys() == expected.state_dict().keys()
    assert norm.running_mean is None or torch.equal(norm.num_batches_tracked, expected.num_batches_tracked)
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(buffer, getattr(expected, name), rtol=1e-6, atol=1e-6)


# Running statistics


@every_norm
def test_running_statistics_follow_several_batches_as_torchs_do(options):
    norm = norm_of(**options)
    expected = copy.deepcopy(norm)
    for i, x_seq in enumerate(batches()):
        follow(norm, fired(norm, x_seq))
        expected(x_seq.flatten(0, 1))
        assert_same_statistics(norm, expected)
        assert norm.running_mean is None or norm.num_batches_tracked == i + 1


def test_the_running_variance_is_the_unbiased_one():
    norm, x_seq = norm_of(momentum=1.0), torch.randn(2, 1, 7, 1, 1)
    follow(norm, fired(norm, x_seq))
    torch.testing.assert_close(norm.running_var, x_seq.var((0, 1, 3, 4), correction=1))


@pytest.mark.parametrize("stopped", ["eval", "track_running_stats"])
def test_a_norm_in_eval_mode_or_told_not_to_track_keeps_its_statistics_as_torchs_does(stopped):
    norm = norm_of()
    if stopped == "eval":
        norm.eval()
    else:
        norm.track_running_stats = False  # in training mode torch then keeps the buffers as they are
    before, (x_seq,) = copy.deepcopy(norm.state_dict()), batches(1)
    follow(norm, fired(norm, x_seq))
    norm_fire(norm, IFNode(), x_seq)
    norm(x_seq.flatten(0, 1))
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_statistics_of_other_channels_are_refused_before_anything_moves():
    for channels in (1, 5):
        norm = norm_of(affine=False)
        before = copy.deepcopy(norm.state_dict())
        with pytest.raises(ValueError, match=rf"running_mean has shape \[7\], expected \[{channels}\]"):
            norm_fire(norm, IFNode(), torch.rand(3, 2, channels, 4, 4))
        assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("affine", [True, False])
def test_the_running_affine_is_what_torchs_norm_amounts_to(affine):
    norm, (x_seq,) = norm_of(affine=affine, eps=0.01), batches(1)
    norm(x_seq.flatten(0, 1))
    norm.eval()
    scale, shift = running_affine(norm)
    got = x_seq * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    torch.testing.assert_close(got, over_time(norm, x_seq), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@every_norm
def test_batch_statistics_are_used_where_torch_uses_them(options, training):
    norm, (x_seq,) = norm_of(**options).train(training), batches(1)
    of_the_batch = torch.nn.functional.batch_norm(
        x_seq.flatten(0, 1), None, None, norm.weight, norm.bias, True, 0, norm.eps
    )
    assert uses_batch_statistics(norm) == torch.allclose(norm(x_seq.flatten(0, 1)), of_the_batch, atol=1e-5)


# Layers in training mode


class Layer(nn.Module):
    """Convolution, norm and neurons, as modules and as a spiking layer."""

    def __init__(self, neuron=NEURONS["IF"], **options):
        super().__init__()
        self.conv = nn.Conv2d(5, 7, 3, 1, 1, bias=False)
        self.bn = norm_of(7, **options)
        self.sn = neuron

    def forward(self, x_seq, residual=None, junction=None):
        return spiking_layer(self.conv, self.bn, self.sn, x_seq, residual, junction)

    def plain(self, x_seq, residual=None, junction=None):
        return join(self.sn(over_time(self.bn, over_time(self.conv, x_seq))), residual, junction)


def inputs(junction=None):
    x_seq = torch.randint(0, 3, (4, 2, 5, 6, 5)).float().requires_grad_()
    residual = torch.randint(0, 2, (4, 2, 7, 6, 5)).float().requires_grad_() if junction else None
    return x_seq, residual, torch.randn(4, 2, 7, 6, 5)


def passed(function, parameters, x_seq, residual, junction, grad):
    """The output, and the gradients at x_seq, the residual and the parameters."""
    out = function(x_seq, residual, junction)
    leaves = [x_seq, *parameters] if residual is None else [x_seq, residual, *parameters]
    return out.detach(), torch.autograd.grad(out, leaves, grad)


def assert_same_training(layer, plain, junction=None, function=None):
    """Equal spikes, gradients 1e-5 apart, running statistics 1e-6 apart, in three batches."""
    for _ in range(3):
        x_seq, residual, grad = inputs(junction)
        out, gradients = passed(function or layer, list(layer.parameters()), x_seq, residual, junction, grad)
        expected, exact = passed(plain.plain, list(plain.parameters()), x_seq, residual, junction, grad)
        assert torch.equal(out, expected) and 0 < out.mean() < 2
        for ours, theirs in zip(gradients, exact, strict=True):
            assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
        assert_same_statistics(layer.bn, plain.bn)


@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS.keys())
@pytest.mark.parametrize("junction", JUNCTIONS)
def test_a_layer_trains_as_torchs_modules_one_by_one(junction, neuron):
    layer = Layer(neuron)
    assert_same_training(layer, copy.deepcopy(layer), junction)


@pytest.mark.parametrize("training", [True, False])
@every_norm
def test_a_layer_of_any_norm_trains_and_evaluates_as_torchs_modules_do(options, training):
    layer = Layer(**options).train(training)
    assert_same_training(layer, copy.deepcopy(layer))


def test_norm_and_neurons_alone_take_a_current_in_any_layout():
    norm, neuron = norm_of(), IFNode()
    (x_seq,) = batches(1)
    expected = neuron(over_time(copy.deepcopy(norm), x_seq))
    last = x_seq.movedim(2, -1).contiguous().movedim(-1, 2)
    for form in (x_seq, last, x_seq.repeat_interleave(2, -1)[..., ::2], x_seq.mT.contiguous().mT):
        assert torch.equal(norm_fire(norm, neuron, form), expected)


def test_a_frozen_norm_of_the_batch_gets_no_gradient():
    layer = Layer()
    layer.bn.requires_grad_(False)
    x_seq, _, grad = inputs()
    layer(x_seq).backward(grad)
    assert layer.bn.weight.grad is None and layer.bn.bias.grad is None
    assert x_seq.grad.any() and layer.conv.weight.grad.any()


def test_one_value_per_channel_is_refused_and_no_statistic_moves():
    layer = Layer()
    before = copy.deepcopy(layer.bn.state_dict())
    with pytest.raises(ValueError, match="batch statistics need two values per channel"):
        layer(torch.rand(1, 1, 5, 1, 1))
    assert all(torch.equal(value, before[name]) for name, value in layer.bn.state_dict().items())


# Who watches a norm, or is another one


class Doubled(nn.BatchNorm2d):
    def forward(self, frames):
        return 2 * super().forward(frames)


def test_a_subclass_of_batch_norm_is_called_as_such():
    layer = Layer()
    layer.bn = Doubled(7)
    assert_same_training(layer, copy.deepcopy(layer), "add")
    x_seq, *_ = inputs()
    other = copy.deepcopy(layer)
    other.bn.__class__ = nn.BatchNorm2d
    assert not torch.equal(layer(x_seq), other(x_seq))


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward"])
def test_a_hook_on_the_norm_is_called(kind):
    layer, calls = Layer(), []
    plain = copy.deepcopy(layer)
    getattr(layer.bn, f"register_{kind}_hook")(lambda *given: calls.append(given))
    assert_same_training(layer, plain)
    assert len(calls) == 3


def test_what_a_hook_returns_for_the_norm_is_what_fires():
    layer = Layer()
    layer.bn.register_forward_hook(lambda module, given, out: torch.full_like(out, 5.0))
    assert layer(inputs()[0]).all()


def test_a_hook_on_every_module_sees_the_norm():
    layer, seen = Layer(), []
    with torch.nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module)):
        layer(inputs()[0])
    assert layer.bn in seen and layer.sn in seen


# Compiled and transformed


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("junction", [None, "iand"])
def test_a_layer_in_training_compiles_without_a_graph_break_and_trains_alike(junction, backend):
    torch.compiler.reset()
    layer = Layer()
    plain = copy.deepcopy(layer)
    compiled = torch.compile(lambda *given: layer(*given), fullgraph=True, backend=backend)
    assert_same_training(layer, plain, junction, compiled)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_without_running_statistics_torch_func_maps_and_differentiates_a_layer_in_training():
    layer = Layer(track_running_stats=False)
    x_seq = torch.randint(0, 3, (3, 4, 2, 5, 6, 5)).float()
    grad = torch.randn(4, 2, 7, 6, 5)
    got = torch.func.vmap(layer)(x_seq)
    gradients = torch.func.vmap(torch.func.grad(lambda x_seq: (layer(x_seq) * grad).sum()))(x_seq)
    for i in range(3):
        leaf = x_seq[i].clone().requires_grad_()
        out = layer(leaf)
        assert torch.equal(got[i], out.detach())
        (expected,) = torch.autograd.grad(out, leaf, grad)
        assert (gradients[i] - expected).norm() <= 1e-5 * expected.norm()


def test_torch_func_differentiates_parameters_and_returns_the_statistics_that_it_was_given():
    layer = Layer()
    plain, (x_seq, _, grad) = copy.deepcopy(layer), inputs()
    parameters, buffers = dict(layer.named_parameters()), {k: v.clone() for k, v in layer.named_buffers()}

    def loss(parameters, buffers):
        out = torch.func.functional_call(layer, (parameters, buffers), (x_seq.detach(),))
        return (out * grad).sum(), buffers

    gradients, _ = torch.func.grad(loss, has_aux=True)(parameters, buffers)
    expected = torch.autograd.grad(plain(x_seq), list(plain.parameters()), grad)
    for (name, ours), theirs in zip(gradients.items(), expected, strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm(), name


def test_torch_func_refuses_to_move_statistics_that_it_was_not_given_as_for_torchs_norm():
    layer, (x_seq, *_) = Layer(), inputs()
    x_seq = x_seq.detach()
    with pytest.raises(RuntimeError, match="mutate a captured Tensor"):
        torch.func.grad(lambda x_seq: layer(x_seq).sum())(x_seq)
    with pytest.raises(RuntimeError, match=r"running_mean or running_var.*were not batched"):
        torch.func.vmap(layer)(torch.stack([x_seq, x_seq]))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_forward_mode_is_refused_rather_than_answered_with_zeros():
    layer, (x_seq, *_) = Layer(track_running_stats=False), inputs()
    x_seq = x_seq.detach()
    with pytest.raises((RuntimeError, NotImplementedError), match=r"forward-mode|jvp|forward mode"):
        torch.func.jvp(layer, (x_seq,), (torch.ones_like(x_seq),))
    for tensor in (x_seq, x_seq.clone().requires_grad_()):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(tensor, torch.ones_like(tensor))
            with pytest.raises((RuntimeError, NotImplementedError), match=r"forward-mode|jvp|forward mode"):
                layer(dual)


def test_checkpointing_recomputes_the_same_gradients():
    layer = Layer(track_running_stats=False)
    x_seq, _, grad = inputs()
    (expected,) = torch.autograd.grad(layer(x_seq), x_seq, grad)
    out = torch.utils.checkpoint.checkpoint(layer, x_seq, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(out, x_seq, grad)[0], expected)
