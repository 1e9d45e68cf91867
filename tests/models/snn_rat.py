"""SNN-RAT's two networks once more, as plain functions of a state_dict: the specification in a few lines of torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)))


class ZIF(torch.autograd.Function):
    """The spike, with the triangle max(0, 1 - |u|) for its gradient."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).float()

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return grad * (1 - u.abs()).clamp(min=0)


def fire(x_seq):
    mem, spikes = 0.0, []
    for x in x_seq:
        mem = mem + x
        spikes.append(ZIF.apply(mem - 1.0))
        mem = mem * (1 - spikes[-1])
    return torch.stack(spikes)


def over_time(function, x_seq):
    return function(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2])


class Net:
    """Looks up weights by their names."""

    def __init__(self, state):
        self.state = state

    def conv(self, name, x_seq, stride=1):
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        return over_time(lambda x: F.conv2d(x, weight, bias, stride, weight.shape[2] // 2), x_seq)

    def linear(self, name, x_seq):
        return over_time(lambda x: F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"]), x_seq)

    def norm(self, name, x_seq):
        part = [self.state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return over_time(lambda x: F.batch_norm(x, *part), x_seq)

    def block(self, name, x_seq, stride):
        spikes = fire(self.norm(f"{name}.bn1", x_seq))
        out = fire(self.norm(f"{name}.bn2", self.conv(f"{name}.conv1", spikes, stride)))
        out, shortcut = self.conv(f"{name}.conv2", out), f"{name}.convShortcut"
        if f"{shortcut}.weight" in self.state:
            x_seq = self.conv(shortcut, spikes, stride)
        comb = self.state[f"{name}.convex.comb"]
        return x_seq * comb[0] + out * comb[1]


def vgg11(state, x_seq, pool=F.avg_pool2d):
    """Return the logits of every step."""
    net, x_seq = Net(state), (x_seq - MEAN) / STD
    for layers in (["layer1.0", None], ["layer2.0", "layer2.3", None], ["layer3.0", "layer3.3", "layer3.6", None]):
        for name in layers:
            if name is None:
                x_seq = over_time(lambda x: pool(x, 2), x_seq)
            else:
                x_seq = fire(net.norm(name[:-1] + str(int(name[-1]) + 1), net.conv(name, x_seq)))
    for name in ("layer4.0", "layer4.3"):
        x_seq = fire(net.norm(name[:-1] + str(int(name[-1]) + 1), net.conv(name, x_seq)))
    x_seq = fire(net.linear("classifier.1", x_seq.flatten(2)))
    x_seq = fire(net.linear("classifier.3", x_seq))
    return net.linear("classifier.5", x_seq)


def wrn16_4(state, x_seq):
    """Return the logits of every step."""
    net = Net(state)
    x_seq = net.conv("conv1", (x_seq - MEAN) / STD)
    for stage in (1, 2, 3):
        for block in (0, 1):
            x_seq = net.block(f"block{stage}.{block}", x_seq, 2 if stage > 1 and block == 0 else 1)
    x_seq = fire(net.norm("bn1", x_seq))
    return net.linear("fc", x_seq.mean((3, 4)))
