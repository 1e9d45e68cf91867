from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import fastsnn

from ..spikingjelly_networks import batch, differentiable, leaf_gradient_zeros, reset, spiking_pair
from .test_sew_resnet import input_gradient

DEPTHS_AND_POOLS = [(18, "max"), (34, "avg"), (50, "max")]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("depth", "pool"), DEPTHS_AND_POOLS)
def test_reference_logits_and_input_gradients_equal_spikingjelly_bit_for_bit(depth, pool, training):
    ours, theirs = spiking_pair(depth, pool)
    ours.train(training), differentiable(theirs.train(training))
    x, y = batch()
    expected, expected_gradient = input_gradient(theirs, x, y)
    with fastsnn.nn.precision("reference"):
        steps, gradient = input_gradient(ours, x, y)
    assert torch.equal(steps, expected)
    assert torch.equal(gradient, expected_gradient)
    assert gradient.abs().max() > 0


class Copied(nn.Module):
    """Their last norm of a block, whose output they change in place, which backward hooks do not allow."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x).clone()


@pytest.mark.parametrize(("depth", "pool"), DEPTHS_AND_POOLS)
def test_l0_sparsity_of_the_gradient_at_every_leaf_equals_spikingjelly(depth, pool):
    ours, theirs = spiking_pair(depth, pool)
    ours.eval(), differentiable(theirs.eval())
    last = "bn2" if depth < 50 else "bn3"
    for module in list(theirs.modules()):
        if hasattr(module, last):
            setattr(module, last, Copied(getattr(module, last)))
    x, y = batch()
    expected = leaf_gradient_zeros(theirs, lambda: cross_entropy(theirs(x.clone().requires_grad_()).mean(0), y))
    reset(theirs)
    with fastsnn.nn.precision("reference"):
        zeros = leaf_gradient_zeros(ours, lambda: cross_entropy(ours(x.clone().requires_grad_()), y))
    zeros = {name: counts for name, counts in zeros.items() if not name.endswith("junction")}  # theirs are no modules
    assert zeros == {name.replace(".norm", ""): counts for name, counts in expected.items()}
    assert len(zeros) > 3 * depth
    assert zeros["layer2.0.downsample.0"][1] > 0, "a stride of 2 leaves zeros: were they counted?"


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("prepared", [False, True], ids=["plain", "prepared"])
def test_fp32_answers_are_those_of_the_reference(prepared, training):
    ours, _ = spiking_pair(50, "avg")
    ours.train(training).requires_grad_(False)
    x, y = batch()
    with fastsnn.nn.precision("reference"):
        expected, expected_gradient = input_gradient(ours, x, y)
    net = fastsnn.engine.prepare(lambda x: ours.forward_sequence(x)) if prepared else ours.forward_sequence
    steps, gradient = input_gradient(net, x, y)
    torch.testing.assert_close(steps, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-3 * expected_gradient.abs().max().item())
    if prepared:
        assert len(net.explain()) == sum(isinstance(module, nn.Conv2d) for module in ours.modules())


def test_training_through_the_engine_gives_the_weight_gradients_of_spikingjelly():
    ours, theirs = spiking_pair(18)
    x, y = batch()
    cross_entropy(theirs.train()(x).mean(0), y).backward()
    cross_entropy(fastsnn.engine.prepare(ours.train())(x), y).backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        theirs_there = expected[name].grad
        assert (parameter.grad - theirs_there).norm() <= 1e-3 * theirs_there.norm(), name
    statistics = dict(theirs.named_buffers())
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, statistics[name], msg=name)


def test_blocks_hand_on_spikes_and_keep_the_reset_in_the_backward_pass_by_default():
    net, (x, _) = spiking_pair(18)[0].eval(), batch()
    seen = []
    for stage in (net.layer1, net.layer4):
        stage.register_forward_hook(lambda module, inputs, out: seen.append(out.unique().tolist()))
    net(x)
    assert seen == [[0, 1], [0, 1]]
    assert not net.sn1.neuron.detach_reset
    assert fastsnn.models.spiking_resnet18(width=4, detach_reset=True).sn1.neuron.detach_reset


def test_hooks_see_the_shortcut_as_a_whole():
    net, seen = spiking_pair(18)[0].eval(), []
    x, _ = batch()
    expected = net(x)
    net.layer2[0].downsample.register_forward_hook(lambda *_: seen.append("shortcut"))
    torch.testing.assert_close(net(x), expected)
    assert seen == ["shortcut"]
