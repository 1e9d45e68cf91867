"""The fused neuron against SpikingJelly's IFNode, and against the machine's copy bandwidth.

Each side runs 40 times in a row before it is the other's turn: of 5 calls of 50 us the first, on the other side's
caches, would be most of what is timed.
"""

from __future__ import annotations

import pytest
import torch

from fastsnn import functional

from .baselines import reset_net, spikingjelly_if_node

SHAPES = {  # [T, B, C, H, W]: neuron layers of SEW-ResNet18 on 32x32 images at the paper's batch
    "stem": (10, 16, 64, 16, 16),
    "layer1": (10, 16, 64, 8, 8),
    "layer3": (10, 16, 256, 2, 2),
    "layer4": (10, 16, 512, 1, 1),
}


def _equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b), "the answers differ: no speed is worth printing"


@pytest.mark.parametrize("layer", SHAPES)
def test_if_forward_and_backward_vs_spikingjelly(compare, layer):
    x, grad = torch.randn(SHAPES[layer]), torch.randn(SHAPES[layer])
    node = spikingjelly_if_node()

    def candidate():
        leaf = x.detach().requires_grad_()
        spikes = functional.multistep_if(leaf)
        return spikes, *torch.autograd.grad(spikes, leaf, grad)

    def baseline():
        reset_net(node)
        leaf = x.detach().requires_grad_()
        spikes = node(leaf)
        return spikes, *torch.autograd.grad(spikes, leaf, grad)

    compare(candidate, baseline, _equal, rounds=10, repeat=40)


@pytest.mark.parametrize("layer", SHAPES)
def test_if_forward_vs_spikingjelly(compare, layer):
    x = torch.randn(SHAPES[layer])
    node = spikingjelly_if_node()

    @torch.no_grad()
    def baseline():
        reset_net(node)
        return (node(x),)

    compare(lambda: (functional.multistep_if(x),), baseline, _equal, rounds=10, repeat=40)


@pytest.mark.parametrize("layer", SHAPES)
def test_if_forward_vs_copy_bandwidth(compare, layer):
    """The baseline is torch's copy of the same tensor into new memory: the same 8 bytes per neuron and step."""
    x = torch.randn(SHAPES[layer])

    def check(spikes, copy):
        assert torch.equal(copy, x) and torch.equal(spikes, functional.multistep_if(x, backend="reference"))

    def note(seconds):
        return f"{8 * x.numel() / seconds / 1e9:.0f} GB/s"

    compare(lambda: functional.multistep_if(x), x.clone, check, rounds=10, repeat=40, note=note)


@pytest.mark.parametrize("layer", SHAPES)
def test_if_backward_vs_copy_bandwidth(compare, layer):
    """The backward op moves 12 bytes per neuron and step, the copy 8: at equal bandwidth the ratio is 0.67."""
    x, grad = torch.randn(SHAPES[layer]), torch.randn(SHAPES[layer])

    def backward(backend):
        neuron = (1.0, 0.0, None, True, "atan", 2.0, True)
        inputs = (grad, x, None, None, None, None, None)
        return torch.ops.fastsnn.integrate_fire_backward(*inputs, *neuron, backend, True)[0]

    def check(gradient, copy):
        assert torch.equal(copy, x) and torch.equal(gradient, backward("reference"))

    def note(seconds):
        return f"{12 * x.numel() / seconds / 1e9:.0f} GB/s"

    compare(lambda: backward(None), x.clone, check, rounds=10, repeat=40, note=note)
