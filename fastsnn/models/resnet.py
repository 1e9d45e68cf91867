"""What SEW-ResNets and Spiking-ResNets share: blocks, stems, stages and head, under SpikingJelly's parameter names.

They differ in where a block's shortcut joins: behind the neurons, as spikes (SEW), or in front of them, as a current.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from ..nn import IFNode, Junction, is_watched, over_time, pooled, spiking_layer, stored
from ..nn.neurons import CONSTANTS
from ..ops import check

POOLS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


class Stem(NamedTuple):
    """The first convolution of a network, and whether a 3x3 pool with stride 2 follows."""

    kernel: int
    stride: int
    has_pool: bool


STEMS = {"imagenet": Stem(7, 2, True), "cifar": Stem(3, 1, False)}
STEM, NO_POOL = "imagenet", "none"  # as published; what stands for a pool in the name of a network without one


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Args:
        inplanes: channels of the input.
        planes: channels within the block, and here of its output.
        stride: of the first 3x3 convolution, and of the shortcut.
        junction: of spikes or current and shortcut, see nn.spiking_layer.
        neuron: constants of the neurons.
    """

    expansion = 1

    def __init__(self, inplanes: int, planes: int, stride: int, junction: str, **neuron):
        super().__init__()
        self.conv1 = _conv(inplanes, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.sn1 = IFNode(**neuron)
        self.conv2 = _conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.sn2 = IFNode(**neuron)
        self.junction = Junction(junction)
        _add_shortcut(self, inplanes, planes, stride, **neuron)

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        """[T, B, inplanes, H, W] -> [T, B, planes, H / stride, W / stride]."""
        out = spiking_layer(self.conv1, self.bn1, self.sn1, x_seq)
        return spiking_layer(self.conv2, self.bn2, self.sn2, out, _shortcut(self, x_seq), self.junction)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; arguments as in BasicBlock."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int, junction: str, **neuron):
        super().__init__()
        self.conv1 = _conv(inplanes, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.sn1 = IFNode(**neuron)
        self.conv2 = _conv(planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.sn2 = IFNode(**neuron)
        self.conv3 = _conv(planes, planes * 4, 1)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.sn3 = IFNode(**neuron)
        self.junction = Junction(junction)
        _add_shortcut(self, inplanes, planes * 4, stride, **neuron)

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        """[T, B, inplanes, H, W] -> [T, B, 4 * planes, H / stride, W / stride]."""
        out = spiking_layer(self.conv1, self.bn1, self.sn1, x_seq)
        out = spiking_layer(self.conv2, self.bn2, self.sn2, out)
        return spiking_layer(self.conv3, self.bn3, self.sn3, out, _shortcut(self, x_seq), self.junction)


Block = type[BasicBlock] | type[Bottleneck]
DEPTHS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """Stem, four stages of blocks, global average, linear layer; use SEWResNet or SpikingResNet.

    Args:
        block: BasicBlock or Bottleneck.
        layers: blocks in each of the four stages.
        pool: "max" or "avg", the stem's pool; None is "max", as published, where the stem has one.
        num_classes: classes.
        junction: of blocks and shortcuts, see nn.spiking_layer.
        width: planes of the stem and of the first stage, doubled in each later one.
        in_channels: channels of the input.
        stem: "imagenet" or "cifar".
        neuron: constants of the neurons, as in nn.IFNode.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        block: Block,
        layers: tuple[int, int, int, int],
        pool: str | None,
        num_classes: int,
        *,
        junction: str,
        width: int = 64,
        in_channels: int = 3,
        stem: str = STEM,
        **neuron,
    ):
        super().__init__()
        check.options(type(self).__name__, neuron, CONSTANTS)
        check.one_of("stem", stem, STEMS)
        kernel, stride, has_pool = STEMS[stem]
        if pool is not None:
            check.one_of("pool", pool, POOLS)
            if not has_pool:
                raise ValueError(f"pool is {pool!r} with stem={stem!r}, which has no pool; expected None.")
        check.integer("num_classes", num_classes, at_least=1)
        check.integer("width", width, at_least=1)
        self.in_channels = check.integer("in_channels", in_channels, at_least=1)
        self.conv1 = _conv(in_channels, width, kernel, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.sn1 = IFNode(**neuron)
        self.maxpool = POOLS[pool or "max"](kernel_size=3, stride=2, padding=1) if has_pool else nn.Identity()
        inplanes = width
        for i, blocks in enumerate(layers):
            planes, stride = width * 2**i, 1 if i == 0 else 2
            stage = nn.Sequential(block(inplanes, planes, stride, junction, **neuron))
            inplanes = planes * block.expansion
            stage.extend(block(inplanes, planes, 1, junction, **neuron) for _ in range(1, blocks))
            self.add_module(f"layer{i + 1}", stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inplanes, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        """Return logits [B, num_classes], the mean over time, for encoded input [T, B, in_channels, H, W]."""
        return self.forward_sequence(x_seq).mean(0)

    def forward_sequence(self, x_seq: torch.Tensor) -> torch.Tensor:
        """Return the logits of every step [T, B, num_classes], which is what SpikingJelly's network returns."""
        check.encoded(x_seq, self.in_channels, self.conv1.weight)
        x_seq = spiking_layer(self.conv1, self.bn1, self.sn1, x_seq, spikes=False)
        x_seq = pooled(self.maxpool, stored(x_seq))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x_seq = stage(x_seq)
        features = over_time(self.avgpool, x_seq).flatten(2)
        return over_time(self.fc, features.to(self.fc.weight.dtype))


def _conv(inplanes: int, planes: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inplanes, planes, size, stride, padding=size // 2, bias=False)


def _add_shortcut(block: nn.Module, inplanes: int, planes: int, stride: int, **neuron) -> None:
    """Give a block that changes the shape a shortcut that does: 1x1 convolution, norm, and neurons to join spikes."""
    block.downsample = block.downsample_sn = None
    if stride != 1 or inplanes != planes:
        block.downsample = nn.Sequential(_conv(inplanes, planes, 1, stride), nn.BatchNorm2d(planes))
        if block.junction.kind != "current":
            block.downsample_sn = IFNode(**neuron)


def _shortcut(block: nn.Module, x_seq: torch.Tensor) -> torch.Tensor:
    if block.downsample is None:
        return x_seq
    if is_watched(block.downsample):
        current = over_time(block.downsample, x_seq)
        return current if block.downsample_sn is None else block.downsample_sn(current)
    conv, norm = block.downsample
    return spiking_layer(conv, norm, block.downsample_sn, x_seq)
