"""VGG-11 of SNN-RAT (Ding et al. 2022, "SNN-RAT: robustness-enhanced spiking neural network"), a baseline of the paper.

Eight convolutions with bias, each with batch norm and IF neurons; three pools; two hidden linear layers with neurons.
Parameter names are those of its public code (putshua/SNN-RAT), so its state_dicts load. There the image is repeated
for T = 8 steps: x_seq = images.expand(8, *images.shape).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..nn import Chain, IFNode, normalize
from ..nn.neurons import CONSTANTS
from ..ops import check
from .resnet import POOLS

# planes of the convolutions in units of `width`, a None is a pool
_VGG11 = ((1, None), (2, 4, None), (8, 8, 8, None), (8, 8))
_HIDDEN = 64  # width of the linear layers, in the same units


class VGG(nn.Module):
    """Convolutions in four groups, then three linear layers: encoded input or images in [0, 1] -> logits.

    Args:
        groups: what each group holds: planes of a convolution in units of `width`, None for a pool of 2x2.
        pool: "avg", as published, or "max".
        num_classes: classes.
        width: planes of the first convolution; 64 as published.
        in_channels: channels of the input: 3 for images, 2 for events.
        image_size: height and width of the input; 32, which is CIFAR's, as published.
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
        groups: Sequence[Sequence[int | None]],
        pool: str = "avg",
        num_classes: int = 10,
        *,
        width: int = 64,
        in_channels: int = 3,
        image_size: int = 32,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        surrogate: str = "triangle",
        alpha: float = 1.0,
        detach_reset: bool = False,
        **neuron,
    ):
        super().__init__()
        check.options(type(self).__name__, neuron, CONSTANTS)
        check.one_of("pool", pool, POOLS)
        check.integer("num_classes", num_classes, at_least=1)
        check.integer("width", width, at_least=1)
        self.in_channels = check.integer("in_channels", in_channels, at_least=1)
        halvings = sum(planes is None for group in groups for planes in group)
        self.image_size = check.integer("image_size", image_size, at_least=2**halvings)
        neuron |= {"surrogate": surrogate, "alpha": alpha, "detach_reset": detach_reset}
        self.norm = normalize(in_channels, mean, std)
        planes = in_channels
        for i, group in enumerate(groups):
            layers = []
            for factor in group:
                if factor is None:
                    layers.append(POOLS[pool](2))
                else:
                    conv = nn.Conv2d(planes, factor * width, 3, padding=1)
                    planes = factor * width
                    layers += [conv, nn.BatchNorm2d(planes), IFNode(**neuron)]
            self.add_module(f"layer{i + 1}", Chain(*layers, spikes=i > 0))
        hidden, size = _HIDDEN * width, image_size // 2**halvings
        first, second = nn.Linear(planes * size**2, hidden), nn.Linear(hidden, hidden)
        layers = (nn.Flatten(), first, IFNode(**neuron), second, IFNode(**neuron), nn.Linear(hidden, num_classes))
        self.classifier = Chain(*layers, spikes=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        """Return logits [B, num_classes], the mean over time, for x_seq [T, B, in_channels, H, W] in [0, 1]."""
        return self.forward_sequence(x_seq).mean(0)

    def forward_sequence(self, x_seq: torch.Tensor) -> torch.Tensor:
        """Return the logits of every step [T, B, num_classes]."""
        check.encoded(x_seq, self.in_channels, self.layer1[0].weight)
        if x_seq.shape[3:] != (self.image_size,) * 2:
            size = f"{self.image_size}x{self.image_size}"
            raise ValueError(f"x_seq has shape {list(x_seq.shape)}, expected images of {size} (image_size).")
        x_seq = self.norm(x_seq)
        for group in (self.layer1, self.layer2, self.layer3, self.layer4, self.classifier):
            x_seq = group(x_seq)
        return x_seq


def vgg11(pool: str = "avg", num_classes: int = 10, **options) -> VGG:
    """VGG-11 of SNN-RAT; options as in VGG."""
    return VGG(_VGG11, pool, num_classes, **options)
