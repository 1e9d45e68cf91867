"""SEW-ResNets (Fang et al. 2021, "Deep residual learning in spiking neural networks").

A residual block fires, then combines with its shortcut: spikes (+) shortcut, where cnf names the (+). Parameter names
are those of SpikingJelly and torchvision, so their state_dicts load.
"""

from __future__ import annotations

from ..ops import check
from .resnet import DEPTHS, BasicBlock, Block, Bottleneck, ResNet

# SpikingJelly flips the order of arguments between its blocks: IAND keeps the shortcut where a basic block does not
# fire, but a bottleneck's spikes where its shortcut is silent
JUNCTIONS = {
    BasicBlock: {"ADD": "add", "AND": "and", "IAND": "iand"},
    Bottleneck: {"ADD": "add", "AND": "and", "IAND": "and_not"},
}
CNFS = ("ADD", "AND", "IAND")


class SEWResNet(ResNet):
    """Stem, four stages of blocks, global average, linear layer; the builders below name the usual depths.

    Args:
        block: BasicBlock or Bottleneck.
        layers: blocks in each of the four stages.
        pool: of ImageNet's stem: "max" or None (as published), or "avg" (the paper's denser-gradient variant).
        num_classes: classes.
        width: planes of the stem and of the first stage, doubled in each later one; 64 as published.
        in_channels: channels of the input: 3 for images, 2 for events.
        stem: "imagenet" (as published): a 7x7 convolution with stride 2, then a 3x3 pool with stride 2; "cifar": a 3x3
            convolution with stride 1 and no pool, which suits small images and leaves `pool` to be None.
        cnf: junction of block and shortcut: "ADD" (as published), "AND" or "IAND".
        neuron: constants of the neurons, as in nn.IFNode: v_threshold, v_reset, surrogate, alpha, detach_reset.

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
        cnf: str = "ADD",
        **options,
    ):
        junction = JUNCTIONS[block][check.one_of("cnf", cnf, CNFS)]
        super().__init__(block, layers, pool, num_classes, junction=junction, **options)


def sew_resnet18(pool: str | None = None, num_classes: int = 10, **options) -> SEWResNet:
    """SEW-ResNet-18 (Fang et al. 2021, table 1); options as in SEWResNet."""
    return SEWResNet(*DEPTHS[18], pool, num_classes, **options)


def sew_resnet34(pool: str | None = None, num_classes: int = 10, **options) -> SEWResNet:
    """SEW-ResNet-34; options as in SEWResNet."""
    return SEWResNet(*DEPTHS[34], pool, num_classes, **options)


def sew_resnet50(pool: str | None = None, num_classes: int = 10, **options) -> SEWResNet:
    """SEW-ResNet-50; options as in SEWResNet."""
    return SEWResNet(*DEPTHS[50], pool, num_classes, **options)


def sew_resnet101(pool: str | None = None, num_classes: int = 10, **options) -> SEWResNet:
    """SEW-ResNet-101; options as in SEWResNet."""
    return SEWResNet(*DEPTHS[101], pool, num_classes, **options)


def sew_resnet152(pool: str | None = None, num_classes: int = 10, **options) -> SEWResNet:
    """SEW-ResNet-152; options as in SEWResNet."""
    return SEWResNet(*DEPTHS[152], pool, num_classes, **options)
