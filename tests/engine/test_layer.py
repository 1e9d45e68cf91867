"""One layer, prepared, against the same layer computed by nn.spiking_layer itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import fastsnn
from fastsnn.engine import prepare
from fastsnn.engine.forms import Dtypes, fitting
from fastsnn.engine.layer import PreparedLayer
from fastsnn.nn import IFNode, LIFNode, spiking_layer
from fastsnn.ops import library

JUNCTIONS = (None, "current", "add", "and", "iand", "and_not")
CONVOLUTIONS = {  # with forms whose sums are exact on small integers
    "3x3 on 2x2": ((5, 7, 3, 1, 1), (2, 2)),
    "pointwise, stride 2": ((5, 7, 1, 2), (5, 4)),
    "3x3, stride 2": ((3, 7, 3, 2, 1), (5, 4)),
    "bias": ((5, 7, 5, 1, 2, 1, 1, True), (2, 2)),
}
NEURONS = {
    "IF": IFNode(),
    "LIF": LIFNode(v_threshold=0.5),
    "soft reset": IFNode(v_reset=None, surrogate="sigmoid", detach_reset=False),
}


class Layer(nn.Module):
    """A layer with weights in eighths and statistics that are not the initial ones."""

    def __init__(self, arguments, neuron=NEURONS["IF"], affine=True):
        super().__init__()
        self.conv = nn.Conv2d(*arguments)
        self.bn = nn.BatchNorm2d(self.conv.out_channels, affine=affine)
        self.sn = neuron
        for parameter in self.conv.parameters():
            parameter.data = torch.randint(-4, 5, parameter.shape) / 8
        self.bn.running_mean.normal_(std=0.2)
        self.bn.running_var.uniform_(0.2, 1.0)
        for parameter in self.bn.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)
        self.eval().requires_grad_(False)

    def forward(self, x_seq, residual=None, junction=None, **how):
        return spiking_layer(self.conv, self.bn, self.sn, x_seq, residual, junction, **how)


def inputs(layer, size, junction, kind=torch.float32):
    """Return x and a residual (or None), as leaves, and a gradient at the output."""
    x = torch.randint(0, 3, (4, 2, layer.conv.in_channels, *size)).to(kind).requires_grad_()
    shape = layer(x).shape
    residual = torch.randint(0, 2, shape).to(kind).requires_grad_() if junction else None
    return x, residual, torch.randn(shape).to(kind)


def passed(function, x, residual, junction, grad):
    """Return the output and the gradients at x and residual."""
    out = function(x, residual, junction)
    leaves = [x] if residual is None else [x, residual]
    return out.detach(), *torch.autograd.grad(out, leaves, grad)


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("junction", JUNCTIONS)
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_output_and_both_input_gradients_equal_the_plain_layers_in_every_form(case, junction, neuron):
    arguments, size = CONVOLUTIONS[case]
    layer = Layer(arguments, NEURONS[neuron])
    x, residual, grad = inputs(layer, size, junction)
    expected = passed(layer, x, residual, junction, grad)
    assert 0 < (layer(x) > 0).float().mean() < 1
    for form, _ in fitting(layer.conv, (8, *size, arguments[0]), torch.float32):
        form = form(layer.conv, Dtypes(*(torch.float32,) * 3), (8, *size, arguments[0]))
        out, *gradients = passed(
            PreparedLayer(form, layer.conv, layer.bn, layer.sn, torch.float32), x, residual, junction, grad
        )
        assert torch.equal(out, expected[0]), form.name
        torch.testing.assert_close(gradients, list(expected[1:]), msg=f"{form.name}: {{}}".format)


@pytest.mark.parametrize("junction", JUNCTIONS)
def test_a_norm_without_affine_is_its_statistics_alone(junction):
    layer = Layer((5, 7, 3, 1, 1), affine=False)
    x, residual, grad = inputs(layer, (2, 2), junction)
    prepared = prepare(layer)
    for got, expected in zip(
        passed(lambda *given: in_form(prepared, layer, *given), x, residual, junction, grad),
        passed(layer, x, residual, junction, grad),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


def in_form(prepared, layer, x, residual, junction):
    with fastsnn.nn.in_force.computed_by(prepared._compute):
        out = layer(x, residual, junction)
    assert prepared.explain()
    return out


@pytest.mark.parametrize("junction", JUNCTIONS)
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_under_fast_a_cpu_fires_the_same_spikes_and_rounds_gradients_only(case, junction):
    arguments, size = CONVOLUTIONS[case]
    layer = Layer(arguments)
    x, residual, grad = inputs(layer, size, junction)
    expected = passed(layer, x, residual, junction, grad)
    with fastsnn.nn.precision("fast"):
        got = passed(lambda *given: in_form(prepare(layer), layer, *given), x, residual, junction, grad)
        plain = passed(layer, x, residual, junction, grad)
    assert all(torch.equal(*pair) for pair in zip(plain, expected, strict=True))
    assert torch.equal(got[0], expected[0]) and all(tensor.dtype == torch.float32 for tensor in got)
    error = (got[1] - expected[1]).norm() / expected[1].norm()
    assert 1e-4 < error < 0.01 if library.has_bf16() else error < 1e-6


@pytest.mark.parametrize("junction", JUNCTIONS)
def test_frames_and_gradients_may_lie_in_memory_as_they_like(junction):
    layer = Layer((5, 7, 3, 1, 1))
    x, residual, grad = inputs(layer, (5, 6), junction)
    prepared = prepare(layer)

    def run(*given):
        return in_form(prepared, layer, *given)

    expected = passed(run, x, residual, junction, grad)
    strewn = [
        None if tensor is None else tensor.detach().repeat_interleave(2, -1)[..., ::2].requires_grad_()
        for tensor in (x, residual)
    ]
    got = passed(run, *strewn, junction, grad.movedim(2, -1).contiguous().movedim(-1, 2))
    assert all(torch.equal(*pair) for pair in zip(got, expected, strict=True))
    constant = grad[:, :, :, :1, :1]
    got = passed(run, x, residual, junction, constant.expand(grad.shape))
    expected = passed(run, x, residual, junction, constant.expand(grad.shape).contiguous())
    assert all(torch.equal(*pair) for pair in zip(got, expected, strict=True))


@pytest.mark.parametrize("loss", [lambda out: out.sum(), lambda out: out.pow(2).sum()], ids=["linear", "squared"])
def test_a_second_derivative_raises(loss):
    layer = Layer((5, 7, 3, 1, 1))
    for junction in (None, "add", "iand"):
        x, residual, _ = inputs(layer, (4, 4), junction)
        out = in_form(prepare(layer), layer, x, residual, junction)
        leaves = [x] if residual is None else [x, residual]
        for gradient in torch.autograd.grad(loss(out), leaves, create_graph=True):
            with pytest.raises(RuntimeError, match="a prepared layer is differentiable once"):
                (gradient.pow(2).sum() + x.sum()).backward(retain_graph=True)


def test_gradients_in_a_plain_backward_pass_carry_no_graph():
    layer = Layer((5, 7, 3, 1, 1))
    x, residual, grad = inputs(layer, (4, 4), "and")
    _, *gradients = passed(lambda *given: in_form(prepare(layer), layer, *given), x, residual, "and", grad)
    assert not any(gradient.requires_grad for gradient in gradients)


@pytest.mark.parametrize("junction", JUNCTIONS)
def test_autograd_keeps_the_input_current_and_what_a_junction_multiplies_with(junction):
    layer = Layer((5, 7, 3, 2, 1))
    x, residual, _ = inputs(layer, (6, 6), junction)
    saved = []
    with saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        out = in_form(prepare(layer), layer, x, residual, junction)
    kept = [tensor for tensor in saved if tensor is not residual]
    assert len(saved) == len(kept) + (junction in ("and", "iand", "and_not"))
    (current,) = kept
    assert current.shape == out.shape and current.untyped_storage().nbytes() == 4 * out.numel()
    expected = layer.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    if junction == "current":
        expected = layer.bn(expected.flatten(0, 1)).unflatten(0, x.shape[:2]) + residual
    torch.testing.assert_close(current, expected)


@pytest.mark.parametrize("pool", ["max", "avg"])
@pytest.mark.parametrize("depth", [18, 50])
def test_of_a_network_autograd_keeps_one_tensor_for_every_layer_of_neurons(depth, pool):
    net = fastsnn.models.BUILDERS[f"sew_resnet{depth}"](pool, width=4).eval().requires_grad_(False)
    x, saved = torch.rand(3, 2, 3, 32, 32, requires_grad=True), []
    weights = {parameter.data_ptr() for parameter in net.parameters()}
    with saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        prepare(net)(x)
    currents = [tensor for tensor in saved if tensor.dim() == 5]
    others = [tensor for tensor in saved if tensor.dim() != 5 and tensor.data_ptr() not in weights]
    assert len(currents) == sum(isinstance(module, IFNode) for module in net.modules())
    assert len(others) <= 2  # of the pool: its input, and for max where the largest were


@pytest.mark.parametrize("prepared", [False, True], ids=["plain", "prepared"])
def test_bad_input_is_refused_as_by_the_plain_layer(prepared):
    layer = Layer((5, 7, 3, 1, 1))
    x = torch.rand(3, 2, 5, 4, 4)

    def run(x_seq, residual=None, junction=None, layer=layer):
        if not prepared:
            return layer(x_seq, residual, junction)
        with fastsnn.nn.in_force.computed_by(prepare(layer)._compute):
            return layer(x_seq, residual, junction)

    right = run(x)
    for channels in (3, 6):
        with pytest.raises(RuntimeError, match=f"to have 5 channels, but got {channels} channels"):
            run(torch.rand(3, 2, channels, 4, 4))
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        run(torch.rand(3, 2, 5, 2, 2), layer=Layer((5, 7, 5)))
    with pytest.raises(RuntimeError, match="should be the same"):
        run(x.double(), layer=Layer((5, 7, 3, 1, 1)).double())
    with pytest.raises(ValueError, match=r"residual has shape \[3, 2, 7, 4, 3\]"):
        run(x, right[..., :3], "add")
    with pytest.raises(ValueError, match="residual and junction go together"):
        run(x, None, "add")
    with pytest.raises(ValueError, match="junction is 'xor'"):
        run(x, right, "xor")
    other = Layer((5, 7, 3, 1, 1))
    other.bn = nn.BatchNorm2d(6).eval().requires_grad_(False)
    with pytest.raises(ValueError, match=r"scale has shape \[6\]"):
        run(x, layer=other)


TRAINED = {
    **CONVOLUTIONS,
    "3x3": ((5, 7, 3, 1, 1), (6, 9)),
    "3x3 with bias": ((5, 7, 3, 1, 1, 1, 1, True), (8, 8)),
    "stem": ((3, 7, 7, 2, 3), (9, 12)),
}


@pytest.mark.parametrize("junction", JUNCTIONS)
@pytest.mark.parametrize("case", TRAINED)
def test_in_training_every_gradient_is_that_of_plain_modules(case, junction):
    arguments, size = TRAINED[case]
    layer = Layer(arguments).train().requires_grad_(True)
    x, residual, grad = inputs(layer, size, junction)
    statistics = copy.deepcopy(layer.bn.state_dict())

    def run(prepared):
        layer.bn.load_state_dict(statistics)
        with fastsnn.nn.precision("fp32" if prepared else "reference"):
            out = in_form(prepared, layer, x, residual, junction) if prepared else layer(x, residual, junction)
            leaves = [x, *layer.parameters(), *([] if residual is None else [residual])]
            return out, torch.autograd.grad(out, leaves, grad), copy.deepcopy(layer.bn.state_dict())

    prepared = prepare(layer)
    out, gradients, followed = run(prepared)
    expected, plain_gradients, plain_followed = run(None)
    assert torch.equal(out, expected)
    for ours, theirs in zip(gradients, plain_gradients, strict=True):
        assert (ours - theirs).norm() <= 1e-5 * max(theirs.norm(), grad.norm() / 10)
    torch.testing.assert_close(followed, plain_followed)


def test_in_training_only_what_asks_for_a_gradient_gets_one():
    layer = Layer((5, 7, 3, 1, 1)).train()
    layer.bn.bias.requires_grad_(True)
    x, residual, grad = inputs(layer, (6, 9), None)
    out = in_form(prepare(layer), layer, x.detach(), residual, None)
    out.backward(grad)
    assert layer.bn.bias.grad.abs().sum() > 0 and x.grad is None
    assert layer.conv.weight.grad is None and layer.bn.weight.grad is None


def test_in_training_weights_changed_by_a_fused_optimizer_are_those_of_the_next_step():
    layer = Layer((5, 7, 3, 1, 1)).train().requires_grad_(True)
    prepared, (x, _, grad) = prepare(layer), inputs(layer, (6, 9), None)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.5, fused=True)
    for _ in range(2):
        out = in_form(prepared, layer, x, None, None)
        assert torch.equal(out, layer(x))
        out.backward(grad)
        optimizer.step()


# Layers without all parts


class Parts(Layer):
    """A layer that lacks its norm, its neurons, or both; or a linear one, which has no norm."""

    def __init__(self, norm=False, neurons=False, linear=False):
        super().__init__((5, 7, 3, 1, 1))
        self.conv = nn.Linear(5, 7).requires_grad_(False).eval() if linear else self.conv
        for parameter in self.conv.parameters():
            parameter.data *= 0.9  # so that no voltage comes near the threshold
        self.bn, self.sn = self.bn if norm else None, self.sn if neurons else None


PARTS = {
    "norm": {"norm": True},
    "neurons": {"neurons": True},
    "convolution alone": {},
    "linear": {"linear": True},
    "linear, neurons": {"linear": True, "neurons": True},
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("junction", [None, "current"])
@pytest.mark.parametrize("parts", PARTS)
def test_a_layer_that_lacks_parts_equals_plain_modules(parts, junction, training):
    layer = Parts(**PARTS[parts]).train(training).requires_grad_(training)
    x = torch.randint(0, 2, (4, 2, 5) if "linear" in parts else (4, 2, 5, 6, 6)).float().requires_grad_()
    with torch.no_grad():
        out = layer.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    residual = torch.randn(out.shape).requires_grad_() if junction else None
    grad, prepared = torch.randn(out.shape), prepare(layer)
    statistics = copy.deepcopy(layer.state_dict())

    def run(compute):
        layer.load_state_dict(statistics)
        out = compute()
        leaves = [x, *(layer.parameters() if training else []), *([] if residual is None else [residual])]
        return out, torch.autograd.grad(out, leaves, grad), copy.deepcopy(layer.state_dict())

    def plain():
        out = layer.conv(x.flatten(0, 1))
        out = (out if layer.bn is None else layer.bn(out)).unflatten(0, x.shape[:2])
        out = out if residual is None else out + residual
        return out if layer.sn is None else layer.sn(out)

    def computed_by_the_engine():
        with fastsnn.nn.in_force.computed_by(prepared._compute):
            return layer(x, residual, junction)

    expected = run(plain)
    for compute in (computed_by_the_engine, lambda: layer(x, residual, junction)):
        out, gradients, followed = run(compute)
        torch.testing.assert_close(out, expected[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(followed, expected[2])
        for ours, theirs in zip(gradients, expected[1], strict=True):
            assert (ours - theirs).norm() <= 1e-5 * max(theirs.norm(), grad.norm() / 10)
    assert bool(prepared.explain()) == (not training or "linear" not in parts)


def test_a_linear_layer_of_the_wrong_width_is_refused_as_by_the_plain_layer():
    layer = Parts(linear=True, neurons=True)
    for run in (layer, lambda x: in_form(prepare(layer), layer, x, None, None)):
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            run(torch.rand(4, 2, 6))


@pytest.mark.parametrize("prepared", [False, True], ids=["plain", "prepared"])
def test_a_residual_that_cannot_join_the_current_is_refused(prepared):
    def run(layer, x, residual, junction):
        if not prepared:
            return layer(x, residual, junction)
        with fastsnn.nn.in_force.computed_by(prepare(layer)._compute):
            return layer(x, residual, junction)

    x, right = torch.rand(3, 2, 5, 4, 4), torch.rand(3, 2, 7, 4, 4)
    for layer in (Layer((5, 7, 3, 1, 1)), Parts(norm=True)):
        with pytest.raises(ValueError, match=r"residual has shape \[3, 2, 7, 4, 1\]"):
            run(layer, x, right[..., :1], "current")
        with pytest.raises(ValueError, match="residual and junction go together"):
            run(layer, x, None, "current")
    with pytest.raises(ValueError, match="junction is 'add', expected one of 'current'"):
        run(Parts(norm=True), x, right, "add")
