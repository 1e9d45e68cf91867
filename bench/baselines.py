"""What fastsnn is compared with, in plain form: the paper's loop on SpikingJelly, and its two faster variants.

(a) paper_pgd: train mode (batch statistics that drift), loss.backward() with weight gradients, as in the paper's code.
(b) frozen_pgd: frozen weights, eval mode, torch.autograd.grad: the best one can do by hand.
(c) frozen_pgd on a compiled network: torch.compile with its default settings.
"""

from __future__ import annotations

import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from spikingjelly.activation_based.functional import reset_net, set_step_mode
from spikingjelly.activation_based.model import sew_resnet
from torch.nn.functional import cross_entropy


def spikingjelly_sew_resnet(depth: int, pool: str, num_classes: int = 10) -> torch.nn.Module:
    """SpikingJelly's SEW-ResNet as the paper builds it: ADD, atan, detached reset, multi-step."""
    net = getattr(sew_resnet, f"sew_resnet{depth}")(
        cnf="ADD",
        spiking_neuron=neuron.IFNode,
        surrogate_function=surrogate.ATan(),
        detach_reset=True,
        num_classes=num_classes,
    )
    if pool == "avg":
        net.maxpool = layer.AvgPool2d(kernel_size=3, stride=2, padding=1)
    set_step_mode(net, "m")
    return net


def spikingjelly_if_node() -> torch.nn.Module:
    """One layer of the same neurons."""
    return neuron.IFNode(surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m")


def paper_pgd(net, x, y, *, eps, alpha, steps):
    """(a): every step computes the weights' gradients too, and moves the running statistics."""
    net.train()
    adv = x.clone()
    for _ in range(steps):
        adv = adv.detach().requires_grad_()
        loss = cross_entropy(net(adv).mean(0), y)
        net.zero_grad()
        loss.backward()
        reset_net(net)
        adv = _step(adv.detach(), x, adv.grad, eps, alpha)
    return adv


def frozen_pgd(net, x, y, *, eps, alpha, steps, forward=None):
    """(b), and (c) with `forward` the compiled network."""
    net.eval().requires_grad_(False)
    forward = net if forward is None else forward
    adv = x.clone()
    for _ in range(steps):
        adv = adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(forward(adv).mean(0), y), adv)
        reset_net(net)
        adv = _step(adv.detach(), x, gradient, eps, alpha)
    net.requires_grad_(True)
    return adv


def _step(adv, x, gradient, eps, alpha):
    return (x + (adv + alpha * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1)
