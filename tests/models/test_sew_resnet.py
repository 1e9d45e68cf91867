from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

import fastsnn

from ..spikingjelly_networks import batch, differentiable, leaf_gradient_zeros, pair, reset

DEPTHS_AND_POOLS = [(depth, pool) for depth in (18, 34, 50) for pool in ("max", "avg")]


def input_gradient(net, x, y):
    x = x.clone().requires_grad_()
    steps = net.forward_sequence(x) if hasattr(net, "forward_sequence") else net(x)
    (gradient,) = torch.autograd.grad(cross_entropy(steps.mean(0), y), x)
    return steps.detach(), gradient


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("depth", "pool"), DEPTHS_AND_POOLS)
def test_reference_logits_and_input_gradients_equal_spikingjelly_bit_for_bit(depth, pool, training):
    ours, theirs = pair(depth, pool)
    ours.train(training), differentiable(theirs.train(training))
    x, y = batch()
    expected, expected_gradient = input_gradient(theirs, x, y)
    with fastsnn.nn.precision("reference"):
        steps, gradient = input_gradient(ours, x, y)
    assert torch.equal(steps, expected)
    assert torch.equal(gradient, expected_gradient)
    assert (gradient == 0).sum() == (expected_gradient == 0).sum(), "L0 sparsity of the input gradient"
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(("depth", "pool"), DEPTHS_AND_POOLS)
def test_l0_sparsity_of_the_gradient_at_every_leaf_equals_spikingjelly(depth, pool):
    ours, theirs = pair(depth, pool)
    ours.eval(), differentiable(theirs.eval())
    x, y = batch()
    expected = leaf_gradient_zeros(theirs, lambda: cross_entropy(theirs(x.clone().requires_grad_()).mean(0), y))
    reset(theirs)
    with fastsnn.nn.precision("reference"):
        zeros = leaf_gradient_zeros(ours, lambda: cross_entropy(ours(x.clone().requires_grad_()), y))
    junctions = {name: zeros.pop(name) for name in list(zeros) if name.endswith("junction")}  # theirs are no modules
    assert zeros == expected
    assert len(junctions) == sum({18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth])
    assert len(zeros) > 3 * depth
    assert zeros["layer2.0.downsample.0"][1] > 0, "a stride of 2 leaves zeros: were they counted?"
    assert (zeros["maxpool"][1] > 0) == (pool == "max")


@pytest.mark.parametrize("cnf", ["ADD", "AND", "IAND"])
@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("precision", ["reference", "fp32"])
def test_every_junction_keeps_spikingjellys_argument_order(depth, cnf, precision):
    ours, theirs = pair(depth, cnf=cnf)
    ours.eval(), differentiable(theirs.eval())
    x, y = batch()
    expected, expected_gradient = input_gradient(theirs, x, y)
    with fastsnn.nn.precision(precision):
        steps, gradient = input_gradient(ours, x, y)
    torch.testing.assert_close(steps, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-3 * expected_gradient.abs().max().item())


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_parameter_names_and_shapes_are_spikingjellys(depth):
    from spikingjelly.activation_based import neuron
    from spikingjelly.activation_based.model import sew_resnet

    with torch.device("meta"):
        theirs = getattr(sew_resnet, f"sew_resnet{depth}")(cnf="ADD", spiking_neuron=neuron.IFNode, num_classes=10)
        ours = fastsnn.models.BUILDERS[f"sew_resnet{depth}"]()
    shapes = {name: value.shape for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in ours.state_dict().items()} == shapes


def test_weight_gradients_of_training_equal_spikingjelly_under_reference():
    ours, theirs = pair(18)
    x, y = batch()
    cross_entropy(theirs.train()(x).mean(0), y).backward()
    with fastsnn.nn.precision("reference"):
        cross_entropy(ours.train()(x), y).backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter.grad, expected[name].grad), name
    for name, buffer in ours.named_buffers():
        assert torch.equal(buffer, dict(theirs.named_buffers())[name]), name


def test_training_in_fp32_gives_the_same_gradients_as_reference():
    ours, _ = pair(18)
    x, y = batch()
    cross_entropy(ours.train()(x), y).backward()
    fused = {name: parameter.grad.clone() for name, parameter in ours.named_parameters()}
    ours, _ = pair(18)
    with fastsnn.nn.precision("reference"):
        cross_entropy(ours.train()(x), y).backward()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(fused[name], parameter.grad, msg=name)


def test_a_watched_layer_is_called_even_where_it_would_be_fused():
    ours, _ = pair(18)
    ours.eval()
    x, _ = batch()
    expected = ours(x)
    seen = []
    ours.layer1[0].bn2.register_forward_hook(lambda module, inputs, output: seen.append("bn2"))
    ours.layer2[0].sn1.register_forward_hook(lambda module, inputs, output: seen.append("sn1"))
    torch.testing.assert_close(ours(x), expected)
    assert seen == ["bn2", "sn1"]


@pytest.mark.parametrize("cnf", ["ADD", "AND", "IAND"])
@pytest.mark.parametrize("depth", [18, 50])
def test_a_watched_junction_is_called_and_gives_what_the_fused_layer_gives(depth, cnf):
    net, seen = pair(depth, cnf=cnf)[0].eval(), []
    x, _ = batch()
    expected = net(x)
    net.layer2[0].junction.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    torch.testing.assert_close(net(x), expected)
    torch.testing.assert_close(fastsnn.engine.prepare(net)(x), expected)
    assert seen == 2 * [(4, 2, 128 * net.layer2[0].expansion, 4, 4)]


def test_fast_precision_has_the_logits_of_fp32_on_a_cpu():
    ours, _ = pair(18, "avg")
    ours.eval()
    x, _ = batch()
    with torch.no_grad():
        expected = ours(x)
        with fastsnn.nn.precision("fast"):
            logits = ours(x)
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("size", [32, 33, 48])
def test_any_image_size_and_number_of_channels(size):
    net = fastsnn.models.sew_resnet18(width=4, in_channels=2, num_classes=7).eval()
    assert net(torch.rand(3, 2, 2, size, size)).shape == (2, 7)
    assert net.forward_sequence(torch.rand(3, 2, 2, size, size)).shape == (3, 2, 7)


def test_channels_last_input_gives_the_same_logits():
    net = pair(18)[0].eval()
    x, _ = batch()
    last = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, x.shape[:2])
    torch.testing.assert_close(net(last), net(x))


def test_no_state_is_kept_between_calls():
    net = pair(18)[0].eval()
    x, _ = batch()
    first = net(x)
    net(1 - x)
    assert torch.equal(net(x), first)


def test_the_whole_network_compiles_without_a_graph_break():
    net = fastsnn.models.sew_resnet18(width=4).eval()
    x, _ = batch(T=2)
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="aot_eager")(x), net(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "mean"}, "pool is 'mean', expected one of 'max', 'avg'"),
        ({"cnf": "ADDD"}, "Did you mean 'ADD'"),
        ({"width": 0}, "width is 0"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"in_channels": 2.5}, "in_channels is 2.5"),
        ({"surrogate": "atann"}, "Did you mean 'atan'"),
        ({"alpha": 0}, "alpha is 0"),
        ({"v_threshold": float("nan")}, "v_threshold is nan"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises((ValueError, TypeError)) as error:
        fastsnn.models.sew_resnet18(**options)
    assert message in str(error.value)


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (4, 2, 1, 32, 32), (0, 2, 3, 32, 32)])
def test_input_of_the_wrong_shape_is_refused(shape):
    net = fastsnn.models.sew_resnet18(width=4)
    with pytest.raises(ValueError, match="x_seq has shape"):
        net(torch.zeros(shape))


def test_an_unknown_precision_is_refused_with_the_near_one():
    with pytest.raises(ValueError, match="Did you mean 'fp32'"), fastsnn.nn.precision("fp23"):
        pass


def test_hooks_see_the_shortcut_as_a_whole_and_every_layer_when_they_are_global():
    net, seen = pair(18)[0].eval(), []
    x, _ = batch()
    expected = net(x)
    handle = net.layer2[0].downsample.register_forward_hook(lambda *_: seen.append("shortcut"))
    torch.testing.assert_close(net(x), expected)
    assert seen == ["shortcut"]
    handle.remove()
    seen.clear()
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    torch.testing.assert_close(net(x), expected)
    handle.remove()
    assert seen.count("BatchNorm2d") == seen.count("Conv2d") == 20


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_a_watched_convolution_works_in_fast_precision(pool):
    net = pair(18, pool)[0].eval()
    x, _ = batch()
    seen = []
    net.layer1[0].conv2.register_forward_hook(lambda *_: seen.append(1))
    with fastsnn.nn.precision("fast"), torch.no_grad():
        assert net(x).isfinite().all() and seen == [1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8])
def test_input_of_the_wrong_type_is_refused_by_name(dtype):
    with pytest.raises(TypeError, match="x_seq is torch"):
        fastsnn.models.sew_resnet18(width=4)(torch.zeros(2, 1, 3, 32, 32, dtype=dtype))
