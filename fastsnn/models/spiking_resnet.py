"""Spiking-ResNets: ResNets whose activations are spiking neurons, which add, then fire (as SpikingJelly builds them).

A residual block adds its shortcut to the current of its last neurons, so that what it hands on is 0 or 1. The paper
holds them against SEW-ResNets. Parameter names are those of SpikingJelly and torchvision, so their state_dicts load.
"""

from __future__ import annotations

from .resnet import DEPTHS, Block, ResNet


class SpikingResNet(ResNet):
    """Stem, four stages of blocks, global average, linear layer; the builders below name the usual depths.

    Args:
        block: BasicBlock or Bottleneck.
        layers: blocks in each of the four stages.
        pool: of ImageNet's stem: "max" or None (as published), or "avg".
        num_classes: classes.
        detach_reset: keep the reset out of the backward pass; False, which is SpikingJelly's default, as the paper's
            code leaves it for these networks.
        options: width, in_channels, stem and the other constants of the neurons, as in SEWResNet.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        block: Block,
        layers: tuple[int, int, int, int],
        pool: str | None = None,
        num_classes: int = 10,
        *,
        detach_reset: bool = False,
        **options,
    ):
        how = {"junction": "current", "detach_reset": detach_reset}
        super().__init__(block, layers, pool, num_classes, **how, **options)


def spiking_resnet18(pool: str | None = None, num_classes: int = 10, **options) -> SpikingResNet:
    """Spiking-ResNet-18; options as in SpikingResNet."""
    return SpikingResNet(*DEPTHS[18], pool, num_classes, **options)


def spiking_resnet34(pool: str | None = None, num_classes: int = 10, **options) -> SpikingResNet:
    """Spiking-ResNet-34; options as in SpikingResNet."""
    return SpikingResNet(*DEPTHS[34], pool, num_classes, **options)


def spiking_resnet50(pool: str | None = None, num_classes: int = 10, **options) -> SpikingResNet:
    """Spiking-ResNet-50; options as in SpikingResNet."""
    return SpikingResNet(*DEPTHS[50], pool, num_classes, **options)
