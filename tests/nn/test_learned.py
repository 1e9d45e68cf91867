"""Learned thresholds and leaks against their equations in plain torch, differentiated by autograd."""

import copy

import pytest
import torch

from fastsnn import attacks, models
from fastsnn.nn import IFNode, LearnedNode, LIFNode, learn_neurons, learned_neurons
from fastsnn.ops.integrate_fire.reference import surrogate_gradient


class Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).float()

    @staticmethod
    def backward(ctx, grad):
        return grad * surrogate_gradient(ctx.saved_tensors[0], "atan", 2.0)


def specified(x_seq, threshold, leak, *, hard, detach):
    v, out = torch.zeros_like(x_seq[0]), []
    for x in x_seq:
        h = leak * v + x
        s = Fire.apply(h - threshold)
        cut = s.detach() if detach else s
        v = h * (1 - cut) if hard else h - threshold * cut
        out.append(s)
    return torch.stack(out)


def node_of(threshold, leak, **constants):
    node = LearnedNode(**constants)
    with torch.no_grad():
        node.threshold.fill_(threshold)
        node.leak.fill_(leak)
    return node


@pytest.mark.parametrize("detach", [True, False], ids=["detached", "through the reset"])
@pytest.mark.parametrize("hard", [True, False], ids=["hard", "soft"])
@pytest.mark.parametrize(("threshold", "leak"), [(1.0, 1.0), (0.7, 0.8)])
def test_spikes_and_gradients_are_those_of_the_equations(hard, detach, threshold, leak):
    draws = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(6, 3, 4, 5, 5, generator=draws) for _ in range(2))
    node = node_of(threshold, leak, v_reset=0.0 if hard else None, detach_reset=detach)
    ours = [x.clone().requires_grad_(), node.threshold, node.leak]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
    out, expected = node(ours[0]), specified(*theirs, hard=hard, detach=detach)
    assert torch.equal(out, expected) and 0.05 < out.mean() < 0.95
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5 * float(other.grad.abs().max()))


def test_an_affine_and_a_junction_are_those_of_other_neurons():
    draws = torch.Generator().manual_seed(1)
    x, residual = torch.randn(4, 2, 3, 4, 4, generator=draws), torch.ones(4, 2, 3, 4, 4)
    how = {"scale": torch.rand(3), "shift": torch.rand(3), "residual": residual, "junction": "add"}
    node, plain = node_of(0.7, 0.8), LIFNode(tau=1 / (1 - 0.8), decay_input=False, v_threshold=0.7)
    learning = node(x, **how)
    assert torch.equal(learning, plain(x, **how)) and learning.requires_grad
    with torch.no_grad():
        assert torch.equal(learning, node(x, **how)), "and with the kernel that learns nothing"


def network():
    torch.manual_seed(0)
    return models.sew_resnet18("avg", width=4)


def test_a_network_whose_neurons_learn_starts_as_it_was():
    net, x = network().eval(), torch.rand(3, 2, 3, 32, 32).round()
    before = net(x)
    count = sum(isinstance(module, IFNode) for module in net.modules())
    assert len(learned_neurons(learn_neurons(net))) == count > 8 and torch.equal(net(x), before)


def test_loaded_constants_are_seen_by_attackers_at_once():
    net, x, y = learn_neurons(network()).eval(), torch.rand(3, 4, 3, 32, 32).round(), torch.arange(4)
    fresh = copy.deepcopy(net)
    for node in learned_neurons(net):
        with torch.no_grad():
            node.threshold.fill_(0.6)
            node.leak.fill_(0.9)
    fresh.load_state_dict(net.state_dict())
    assert {(node.neuron.v_threshold, node.neuron.tau) for node in learned_neurons(fresh)} != {(1.0, None)}
    how = {"eps": 8 / 255, "alpha": 0.02, "steps": 2, "random_start": False, "surrogate": "assg"}
    assert torch.equal(attacks.pgd(fresh, x, y, **how), attacks.pgd(net, x, y, **how))
    assert all(node.leak.requires_grad for node in learned_neurons(net))


def test_what_cannot_learn_is_refused():
    with pytest.raises(ValueError, match="leaks already"):
        learn_neurons(torch.nn.Sequential(LIFNode()))
    with pytest.raises(ValueError, match=r"v_reset is 0\.5"):
        LearnedNode(v_reset=0.5)
    with pytest.raises(ValueError, match=r"leak is 1\.5"):
        node_of(1.0, 1.5)(torch.ones(1, 1, 1))
