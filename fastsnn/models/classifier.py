"""An encoder and a network as one: images in, logits out, which is what attack libraries expect."""

from __future__ import annotations

import torch
from torch import nn


class Classifier(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> logits [B, num_classes].

    Args:
        net: takes encoded input [T, B, C, H, W], returns logits [B, num_classes].
        encoder: takes images, returns encoded input; an attack on the image sees its (straight-through) gradient.
    """

    def __init__(self, net: nn.Module, encoder: nn.Module):
        super().__init__()
        self.net = net
        self.encoder = encoder

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return the encoded input [T, B, C, H, W], the space in which the paper attacks."""
        if images.dim() != 4:
            raise ValueError(f"images has shape {list(images.shape)}, expected [B, C, H, W].")
        return self.encoder(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [B, num_classes]."""
        return self.net(self.encode(images))
