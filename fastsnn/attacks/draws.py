"""Random starts: numbers from one generator for the batch, or from one for each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..ops.attack_step import default_batch_axis

Generators = torch.Generator | Sequence[torch.Generator] | None
Draw = Callable[[torch.Tensor], torch.Tensor]


def numbers(
    kind: Callable[..., torch.Tensor], shape: Sequence[int], axis: int, generator: Generators, device: torch.device
) -> torch.Tensor:
    """Return random numbers of a shape, in float32, as input is.

    Args:
        kind: torch.rand or torch.randn.
        shape: of the result.
        axis: of the samples.
        generator: on the device; None uses (and advances) torch's global one. A list holds one for each sample, so that
            what a sample gets does not depend on its batch.
        device: of the result.
    """
    if not isinstance(generator, (list, tuple)):
        if generator is not None and not isinstance(generator, torch.Generator):
            what = type(generator).__name__
            raise TypeError(f"generator is of type {what}, expected a torch.Generator, a list of them, or None.")
        return kind(shape, generator=generator, device=device, dtype=torch.float32)
    if len(generator) != shape[axis]:
        raise ValueError(f"generator is a list of {len(generator)}, expected {shape[axis]}: one for each sample.")
    found = torch.empty(shape, device=device, dtype=torch.float32)
    for sample, one in zip(found.unbind(axis), generator, strict=True):
        sample.copy_(kind(sample.shape, generator=one, device=device, dtype=torch.float32))
    return found


def like(kind: Callable[..., torch.Tensor], x: torch.Tensor, generator: Generators) -> torch.Tensor:
    """Return random numbers in the shape of x."""
    return numbers(kind, x.shape, default_batch_axis(x), generator, x.device)


def for_each(kind: Callable[..., torch.Tensor], x: torch.Tensor, generator: Generators) -> torch.Tensor:
    """Return one random number for each sample of x [B]."""
    return numbers(kind, [x.shape[default_batch_axis(x)]], 0, generator, x.device)
