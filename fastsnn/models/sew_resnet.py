"""SEW-ResNets (Fang et al. 2021, "Deep residual learning in spiking neural networks").

A residual block fires, then combines with its shortcut: spikes (+) shortcut, where cnf names the (+). The stem is
ImageNet's: a 7x7 convolution with stride 2, then a 3x3 pool with stride 2, max or average. Parameter names are those of
SpikingJelly and torchvision, so their state_dicts load.
"""

from __future__ import annotations

import torch
from torch import nn

from ..nn import IFNode, is_watched, over_time, pooled, spiking_layer, stored
from ..ops import check

POOLS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
CNFS = ("ADD", "AND", "IAND")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; the shortcut comes first in the junction: IAND keeps it where the block does not fire."""

    expansion = 1
    junctions = {"ADD": "add", "AND": "and", "IAND": "iand"}  # noqa: RUF012 - a constant table

    def __init__(self, inplanes: int, planes: int, stride: int, cnf: str, **neuron):
        super().__init__()
        self.conv1 = _conv(inplanes, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.sn1 = IFNode(**neuron)
        self.conv2 = _conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.sn2 = IFNode(**neuron)
        _add_shortcut(self, inplanes, planes, stride, **neuron)
        self.junction = self.junctions[cnf]

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        """[T, B, inplanes, H, W] -> [T, B, planes, H / stride, W / stride]."""
        out = spiking_layer(self.conv1, self.bn1, self.sn1, x_seq)
        return spiking_layer(self.conv2, self.bn2, self.sn2, out, _shortcut(self, x_seq), self.junction)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions; the block comes first in the junction: IAND keeps it where the shortcut is silent."""

    expansion = 4
    junctions = {"ADD": "add", "AND": "and", "IAND": "and_not"}  # noqa: RUF012

    def __init__(self, inplanes: int, planes: int, stride: int, cnf: str, **neuron):
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
        _add_shortcut(self, inplanes, planes * 4, stride, **neuron)
        self.junction = self.junctions[cnf]

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        """[T, B, inplanes, H, W] -> [T, B, 4 * planes, H / stride, W / stride]."""
        out = spiking_layer(self.conv1, self.bn1, self.sn1, x_seq)
        out = spiking_layer(self.conv2, self.bn2, self.sn2, out)
        return spiking_layer(self.conv3, self.bn3, self.sn3, out, _shortcut(self, x_seq), self.junction)


class SEWResNet(nn.Module):
    """Stem, four stages of blocks, global average, linear layer; the builders below name the usual depths.

    Args:
        block: BasicBlock or Bottleneck.
        layers: blocks in each of the four stages.
        pool: "max" (as published) or "avg" (the paper's denser-gradient variant): the 3x3 stride-2 pool of the stem.
        num_classes: classes.
        width: planes of the stem and of the first stage, doubled in each later one; 64 as published.
        in_channels: channels of the input: 3 for images, 2 for events.
        cnf: junction of block and shortcut: "ADD" (as published), "AND" or "IAND".
        neuron: constants of the neurons, as in nn.IFNode: v_threshold, v_reset, surrogate, alpha, detach_reset.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: tuple[int, int, int, int],
        pool: str = "max",
        num_classes: int = 10,
        *,
        width: int = 64,
        in_channels: int = 3,
        cnf: str = "ADD",
        **neuron,
    ):
        super().__init__()
        check.one_of("pool", pool, POOLS)
        check.one_of("cnf", cnf, CNFS)
        check.integer("num_classes", num_classes, at_least=1)
        check.integer("width", width, at_least=1)
        self.in_channels = check.integer("in_channels", in_channels, at_least=1)
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.sn1 = IFNode(**neuron)
        self.maxpool = POOLS[pool](kernel_size=3, stride=2, padding=1)
        inplanes = width
        for i, blocks in enumerate(layers):
            planes, stride = width * 2**i, 1 if i == 0 else 2
            stage = nn.Sequential(block(inplanes, planes, stride, cnf, **neuron))
            inplanes = planes * block.expansion
            stage.extend(block(inplanes, planes, 1, cnf, **neuron) for _ in range(1, blocks))
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
        if x_seq.dim() != 5 or x_seq.shape[2] != self.in_channels:
            raise ValueError(
                f"x_seq has shape {list(x_seq.shape)}, expected encoded input [T, B, {self.in_channels}, H, W]."
            )
        weight = self.conv1.weight
        if x_seq.dtype != weight.dtype or x_seq.device != weight.device:
            raise TypeError(
                f"x_seq is {x_seq.dtype} on {x_seq.device}, expected the network's {weight.dtype} on {weight.device}."
            )
        x_seq = spiking_layer(self.conv1, self.bn1, self.sn1, x_seq, spikes=False)
        x_seq = pooled(self.maxpool, stored(x_seq))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x_seq = stage(x_seq)
        features = over_time(self.avgpool, x_seq).flatten(2)
        return over_time(self.fc, features.to(self.fc.weight.dtype))


_STAGES = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def sew_resnet18(pool: str = "max", num_classes: int = 10, **options) -> SEWResNet:
    """SEW-ResNet-18 (Fang et al. 2021, table 1); options as in SEWResNet."""
    return SEWResNet(*_STAGES[18], pool, num_classes, **options)


def sew_resnet34(pool: str = "max", num_classes: int = 10, **options) -> SEWResNet:
    """SEW-ResNet-34; options as in SEWResNet."""
    return SEWResNet(*_STAGES[34], pool, num_classes, **options)


def sew_resnet50(pool: str = "max", num_classes: int = 10, **options) -> SEWResNet:
    """SEW-ResNet-50; options as in SEWResNet."""
    return SEWResNet(*_STAGES[50], pool, num_classes, **options)


def sew_resnet101(pool: str = "max", num_classes: int = 10, **options) -> SEWResNet:
    """SEW-ResNet-101; options as in SEWResNet."""
    return SEWResNet(*_STAGES[101], pool, num_classes, **options)


def sew_resnet152(pool: str = "max", num_classes: int = 10, **options) -> SEWResNet:
    """SEW-ResNet-152; options as in SEWResNet."""
    return SEWResNet(*_STAGES[152], pool, num_classes, **options)


def _conv(inplanes: int, planes: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inplanes, planes, size, stride, padding=size // 2, bias=False)


def _add_shortcut(block: nn.Module, inplanes: int, planes: int, stride: int, **neuron) -> None:
    """Give a block that changes the shape a shortcut that does: 1x1 convolution, norm and neurons of its own."""
    block.downsample = None
    if stride != 1 or inplanes != planes:
        block.downsample = nn.Sequential(_conv(inplanes, planes, 1, stride), nn.BatchNorm2d(planes))
        block.downsample_sn = IFNode(**neuron)


def _shortcut(block: nn.Module, x_seq: torch.Tensor) -> torch.Tensor:
    if block.downsample is None:
        return x_seq
    if is_watched(block.downsample):
        return block.downsample_sn(over_time(block.downsample, x_seq))
    conv, norm = block.downsample
    return spiking_layer(conv, norm, block.downsample_sn, x_seq)
