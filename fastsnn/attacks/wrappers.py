"""Networks that hide their gradient, made attackable: random ones (EOT), and parts without a gradient (BPDA).

Athalye et al. 2018, "Obfuscated gradients give a false sense of security", sections 4.1 and 4.2.
"""

from __future__ import annotations

import torch
from torch import nn

from ..ops import check


class EOT(nn.Module):
    """A randomised network as an attack should see it: what it looks at is the mean of several passes.

    Expectation over transformation (Athalye et al. 2018, section 4.2): attacks of this package climb the mean of the
    passes' losses by the mean of their gradients, and count a sample as fooled where the mean of the logits is wrong.
    `PGD(EOT(clf, samples=20))(images, y)` attacks e.g. a Classifier with a RateEncoder. An adaptive surrogate
    learns from every pass. The wrapped network is put in the state it is attacked in and gets its own back, as ever.

    Args:
        network: from x to logits [B, classes], other ones in every call.
        samples: passes for each look, at least 1; each costs a whole look. 10 as in Wang et al. 2025 on Poisson codes.
    """

    def __init__(self, network: nn.Module, samples: int = 10):
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(f"network is of type {type(network).__name__}, expected a torch.nn.Module.")
        self.network, self.samples = network, check.integer("samples", samples, at_least=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean of the logits [B, classes]."""
        return sum(self.network(x) for _ in range(self.samples)) / self.samples

    def extra_repr(self) -> str:
        """List the setting."""
        return f"samples={self.samples}"


class BPDA(nn.Module):
    """A part whose backward pass is the identity's: for encoders, and for preprocessing, that let no gradient through.

    Backward pass differentiable approximation (Athalye et al. 2018, section 4.1, g(x) = x). An encoder's steps each
    count as the image itself, so that their gradients add up: `Classifier(net, BPDA(LatencyEncoder()))`.

    Args:
        part: a module that returns something of its input's shape, or, as encoders do, steps of that shape.
    """

    def __init__(self, part: nn.Module):
        super().__init__()
        if not isinstance(part, nn.Module):
            raise TypeError(f"part is of type {type(part).__name__}, expected a torch.nn.Module.")
        self.part = part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the part returns.

        Raises:
            ValueError: that is neither like x nor steps like x.
        """
        out = self.part(x.detach())
        if not x.requires_grad:
            return out
        if x.shape not in (out.shape, out.shape[1:]):
            raise ValueError(
                f"part returned shape {list(out.shape)}, expected {list(x.shape)} as x has, or steps of it."
            )
        return out + (x - x.detach())  # adds exactly 0
