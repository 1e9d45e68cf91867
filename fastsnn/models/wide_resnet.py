"""WRN-16-4 of SNN-RAT (Ding et al. 2022): a wide ResNet (Zagoruyko & Komodakis 2016), a baseline of the paper.

Its blocks norm and fire first, and hand on a convex combination of shortcut and residual with learned weights, so that
what passes between blocks is a current. Parameter names are those of its public code (putshua/SNN-RAT), so its
state_dicts load. There the image is repeated for T = 8 steps: x_seq = images.expand(8, *images.shape).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..nn import IFNode, norm_fire, normalize, over_time, spiking_layer
from ..nn.neurons import CONSTANTS
from ..ops import check


class Mix(nn.Module):
    """A combination of two currents with learned weights, which training may hold on the simplex.

    Attributes:
        comb: the two weights; a half each at first.
    """

    def __init__(self):
        super().__init__()
        self.comb = nn.Parameter(torch.full((2,), 0.5))

    def forward(self, shortcut: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Return it, like both."""
        return shortcut * self.comb[0] + residual * self.comb[1]


class Block(nn.Module):
    """Norm, neurons, 3x3 convolution, twice; where planes change, the shortcut is a 1x1 convolution of the spikes."""

    def __init__(self, inplanes: int, planes: int, stride: int, **neuron):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inplanes)
        self.act1 = IFNode(**neuron)
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.act2 = IFNode(**neuron)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        # a name of theirs, like the others
        self.convShortcut = None if inplanes == planes else nn.Conv2d(inplanes, planes, 1, stride, bias=False)
        self.convex = Mix()

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        """[T, B, inplanes, H, W] -> [T, B, planes, H / stride, W / stride]."""
        spikes = norm_fire(self.bn1, self.act1, x_seq)
        residual = spiking_layer(self.conv1, self.bn2, self.act2, spikes)
        residual = spiking_layer(self.conv2, None, None, residual)
        shortcut = x_seq if self.convShortcut is None else spiking_layer(self.convShortcut, None, None, spikes)
        return self.convex(shortcut, residual)


class WideResNet(nn.Module):
    """A 3x3 convolution, three stages of blocks, norm, neurons, global average, linear layer.

    Args:
        blocks: in each stage.
        pool: "avg": the only pool, at the end, is an average.
        num_classes: classes.
        width: planes of the first stage, doubled in each later one, four times those of the first convolution; 64 as
            published.
        in_channels: channels of the input: 3 for images, 2 for events.
        mean: of each channel, taken off the input within the network; None: CIFAR-10's for 3 channels, as published,
            and none for others.
        std: of each channel, by which the input is then divided; together with mean.
        surrogate: as in nn.IFNode; "triangle", as published.
        alpha: inverse width of the surrogate; 1 as published.
        detach_reset: keep the reset out of the backward pass; False as published.
        neuron: other constants of the neurons, as in nn.IFNode.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        blocks: int,
        pool: str = "avg",
        num_classes: int = 10,
        *,
        width: int = 64,
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        surrogate: str = "triangle",
        alpha: float = 1.0,
        detach_reset: bool = False,
        **neuron,
    ):
        super().__init__()
        check.options(type(self).__name__, neuron, CONSTANTS)
        check.one_of("pool", pool, ("avg",))
        check.integer("num_classes", num_classes, at_least=1)
        check.integer("width", width, at_least=1)
        self.in_channels = check.integer("in_channels", in_channels, at_least=1)
        neuron |= {"surrogate": surrogate, "alpha": alpha, "detach_reset": detach_reset}
        self.norm = normalize(in_channels, mean, std)
        inplanes = max(1, width // 4)
        self.conv1 = nn.Conv2d(in_channels, inplanes, 3, padding=1, bias=False)
        for i in range(3):
            planes, stride = width * 2**i, 1 if i == 0 else 2
            stage = nn.Sequential(Block(inplanes, planes, stride, **neuron))
            stage.extend(Block(planes, planes, 1, **neuron) for _ in range(1, blocks))
            self.add_module(f"block{i + 1}", stage)
            inplanes = planes
        self.bn1 = nn.BatchNorm2d(inplanes)
        self.act = IFNode(**neuron)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inplanes, num_classes)
        nn.init.zeros_(self.fc.bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        """Return logits [B, num_classes], the mean over time, for x_seq [T, B, in_channels, H, W] in [0, 1]."""
        return self.forward_sequence(x_seq).mean(0)

    def forward_sequence(self, x_seq: torch.Tensor) -> torch.Tensor:
        """Return the logits of every step [T, B, num_classes]."""
        check.encoded(x_seq, self.in_channels, self.conv1.weight)
        x_seq = spiking_layer(self.conv1, None, None, self.norm(x_seq), spikes=False)
        for stage in (self.block1, self.block2, self.block3):
            x_seq = stage(x_seq)
        features = over_time(self.avgpool, norm_fire(self.bn1, self.act, x_seq)).flatten(2)
        return over_time(self.fc, features.to(self.fc.weight.dtype))


def wrn16_4(pool: str = "avg", num_classes: int = 10, **options) -> WideResNet:
    """WRN-16-4 of SNN-RAT: 16 layers, two blocks in each stage, planes four times the original's; as in WideResNet."""
    return WideResNet(2, pool, num_classes, **options)
