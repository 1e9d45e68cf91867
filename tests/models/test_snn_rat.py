"""VGG-11 and WRN-16-4 against their specification."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastsnn

from ..spikingjelly_networks import unsettle
from . import snn_rat


def build(name, pool="avg", width=8, **options):
    torch.manual_seed(0)
    net = fastsnn.models.BUILDERS[name](pool, width=width, **options)
    unsettle(net)
    for parameter in net.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.3, 0.9)
    return net.eval().requires_grad_(False)


def input_gradient(steps_of, x, y):
    x = x.clone().requires_grad_()
    steps = steps_of(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(steps.mean(0), y, reduction="sum"), x)
    return steps.detach(), gradient


@pytest.mark.parametrize(("name", "pool"), [("vgg11", "avg"), ("vgg11", "max"), ("wrn16_4", "avg")])
def test_logits_and_input_gradients_are_those_of_the_specification(name, pool):
    net = build(name, pool)
    x, y = torch.rand(2, 3, 32, 32).expand(4, 2, 3, 32, 32), torch.tensor([3, 7])
    how = {"pool": getattr(F, f"{pool}_pool2d")} if name == "vgg11" else {}
    expected = input_gradient(lambda x: getattr(snn_rat, name)(net.state_dict(), x, **how), x, y)
    assert expected[1].abs().max() > 0
    for precision in ("reference", "fp32"):
        with fastsnn.nn.precision(precision):
            steps, gradient = input_gradient(net.forward_sequence, x, y)
        torch.testing.assert_close(steps, expected[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(gradient, expected[1], rtol=1e-3, atol=1e-3 * expected[1].abs().max().item())
    assert torch.equal(net(x), net.forward_sequence(x).mean(0))


def test_the_published_sizes():
    with torch.device("meta"):
        vgg, wrn = fastsnn.models.vgg11(), fastsnn.models.wrn16_4(num_classes=100)
    assert [tuple(p.shape) for p in vgg.parameters() if p.dim() == 4] == [
        (64, 3, 3, 3),
        (128, 64, 3, 3),
        (256, 128, 3, 3),
        (512, 256, 3, 3),
        *[(512, 512, 3, 3)] * 4,
    ]
    assert [tuple(p.shape) for p in vgg.parameters() if p.dim() == 2] == [(4096, 8192), (4096, 4096), (10, 4096)]
    planes = [p.shape[0] for name, p in wrn.named_parameters() if p.dim() == 4 and "Shortcut" not in name]
    assert planes == [16, *[64] * 4, *[128] * 4, *[256] * 4]
    assert wrn.fc.weight.shape == (100, 256)


@pytest.mark.parametrize("name", ["vgg11", "wrn16_4"])
def test_neurons_are_the_published_ones(name):
    neurons = {node.neuron for node in build(name).modules() if isinstance(node, fastsnn.nn.IFNode)}
    (neuron,) = neurons
    assert (neuron.tau, neuron.v_threshold, neuron.v_reset) == (None, 1, 0)
    assert (neuron.surrogate, neuron.alpha, neuron.detach_reset) == ("triangle", 1, False)


@pytest.mark.parametrize("name", ["vgg11", "wrn16_4"])
def test_images_are_normalised_within_and_events_are_not(name):
    net = build(name)
    assert isinstance(net.norm, fastsnn.nn.Normalize)
    assert not {key for key in net.state_dict() if key.startswith("norm")}
    assert isinstance(build(name, in_channels=2).norm, nn.Identity)
    net = build(name, in_channels=2, mean=(0.5, 0.25), std=(0.1, 0.2))
    x = torch.rand(2, 1, 2, 32, 32)
    expected = torch.stack([(x[:, :, 0] - 0.5) / 0.1, (x[:, :, 1] - 0.25) / 0.2], 2)
    torch.testing.assert_close(net.norm(x), expected)
    assert net(x).shape == (1, 10)


def test_a_vgg_for_other_image_sizes():
    net = build("vgg11", image_size=48)
    assert net(torch.rand(2, 1, 3, 48, 48)).shape == (1, 10)
    with pytest.raises(ValueError, match=r"expected images of 48x48 \(image_size\)"):
        net(torch.rand(2, 1, 3, 32, 32))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg11", {"pool": "mean"}, "pool is 'mean', expected one of 'max', 'avg'"),
        ("wrn16_4", {"pool": "max"}, "pool is 'max', expected one of 'avg'"),
        ("vgg11", {"image_size": 7}, "image_size is 7"),
        ("vgg11", {"mean": (0.5, 0.5, 0.5)}, "mean came alone"),
        ("wrn16_4", {"std": (0.5, 0.5, 0.5)}, "std came alone"),
        ("wrn16_4", {"mean": (0.5,), "std": (1,)}, "mean has 1 values, expected 3"),
        ("wrn16_4", {"mean": (0.5,) * 3, "std": (1, 1)}, "std has 2 values, expected 3"),
        ("vgg11", {"mean": (0.5,) * 3, "std": (1, 0, 1)}, "std is 0, expected a finite number above 0"),
        ("wrn16_4", {"width": 0}, "width is 0"),
        ("vgg11", {"num_classes": 0}, "num_classes is 0"),
        ("wrn16_4", {"surrogate": "zif"}, "surrogate is 'zif'"),
    ],
)
def test_bad_options_are_refused_by_name(name, options, message):
    with pytest.raises(ValueError) as error:
        fastsnn.models.BUILDERS[name](**{"width": 4, **options})
    assert message in str(error.value)
