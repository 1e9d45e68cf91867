"""Inputs as the compiled backends take them."""

from __future__ import annotations

import torch

from .. import layout


def aligned(
    x_seq: torch.Tensor,
    v_init: torch.Tensor | None,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
    residual: torch.Tensor | None,
) -> tuple[torch.Tensor | None, ...]:
    """Return the inputs with the memory layout of x_seq; what is not stored like it in float32."""
    if v_init is not None:
        v_init = layout.like(v_init, torch.empty_like(x_seq[0], dtype=torch.float32))
    if scale is not None:
        scale, shift = scale.float().contiguous(), shift.float().contiguous()
    if residual is not None:
        residual = layout.like(residual, x_seq)
    return x_seq, v_init, scale, shift, residual
