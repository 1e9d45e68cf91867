"""phase_encode as an op of torch, with the straight-through gradient on request."""

from __future__ import annotations

import torch

from .. import backends, check

_LIBRARY = torch.library.Library("fastsnn", "FRAGMENT")
_LIBRARY.define("phase_encode(Tensor images, int T, int K, bool weighted, str? backend) -> Tensor")


def phase_encode(
    images: torch.Tensor,
    T: int = 10,
    K: int = 8,
    *,
    weighted: bool = False,
    straight_through: bool = False,
    backend: str | None = None,
) -> torch.Tensor:
    """Check the arguments and run the op; see functional.phase_encode for what they mean."""
    check.tensor("images", images, (torch.uint8, *check.STORAGE_DTYPES))
    check.integer("T", T, at_least=1)
    check.integer("K", K, at_least=1, at_most=16)
    if straight_through and images.requires_grad and torch.is_grad_enabled():
        return _StraightThrough.apply(images, T, K, weighted, backend)
    return torch.ops.fastsnn.phase_encode(images.detach(), T, K, weighted, backend)


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(images, T, K, weighted, backend):
        return torch.ops.fastsnn.phase_encode(images, T, K, weighted, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        images, _, ctx.K, ctx.weighted, _ = inputs
        ctx.dtype = images.dtype

    @staticmethod
    def backward(ctx, grad):
        if ctx.weighted:
            t = torch.arange(grad.shape[0], device=grad.device)
            weights = torch.exp2(-(1.0 + t % ctx.K)).view(-1, *(1,) * (grad.dim() - 1))
            grad = grad * weights
        return grad.sum(0).to(ctx.dtype), None, None, None, None


def _forward(images, T, K, weighted, backend):
    if images.is_floating_point():
        check.unit_interval("images", images)
    return backends.implementation("phase_encode", backend, images.device).forward(images, T, K, weighted)


def _forward_fake(images, T, K, weighted, backend):
    return images.new_empty((T, *images.shape), dtype=torch.float32)


_LIBRARY.impl("phase_encode", _forward, "CompositeExplicitAutograd")
torch.library.register_fake("fastsnn::phase_encode", _forward_fake, lib=_LIBRARY)
