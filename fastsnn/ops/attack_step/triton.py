"""attack_step on a GPU, in Triton. Specification: reference.py.

    moved = x + alpha * sign(gradient)
    out   = clip(origin + clip(moved - origin, -eps, eps), 0, 1)

One pass instead of torch's seven: 12 bytes read and 4 written per element. A program owns a block inside one sample's
run of neighbours, so that eps and alpha are scalars. With `exact` the last rounding is turned towards the origin
wherever it left the ball.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .. import layout

_WARPS = 4
_BLOCK = 4 * 32 * _WARPS  # four elements per thread: loads of 16 bytes


def forward(x, origin, gradient, eps, alpha, batch_axis: int, exact: bool) -> torch.Tensor:
    """See reference.forward."""
    out = torch.empty_like(x)
    if x.numel():
        inputs = (x, layout.like(origin, x), layout.like(gradient, x), eps, alpha, out)
        samples = x.shape[batch_axis]
        run = x.stride(batch_axis) if samples > 1 else x.numel()  # x is dense: a stride counts the elements inside
        grid = (x.numel() // run * triton.cdiv(run, _BLOCK),)
        with torch.cuda.device_of(x):
            attack_step_fwd_kernel[grid](*inputs, run, samples, exact, _BLOCK, num_warps=_WARPS, enable_fp_fusion=False)
    return out


@triton.jit
def attack_step_fwd_kernel(
    x_ptr,  # runs of neighbours of one sample each, as origin, gradient and out
    origin_ptr,
    gradient_ptr,
    eps_ptr,  # [samples], as alpha; run r belongs to sample r % samples
    alpha_ptr,
    out_ptr,
    run: tl.int64,
    samples,
    EXACT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write BLOCK elements of the next iterate."""
    blocks = tl.cdiv(run, BLOCK)
    this_run = tl.program_id(0) // blocks
    first = (tl.program_id(0) - this_run * blocks) * BLOCK
    base = this_run * run + first
    lane = tl.arange(0, BLOCK)
    owned = lane < tl.minimum(run - first, BLOCK).to(tl.int32)
    eps = tl.load(eps_ptr + this_run % samples)
    alpha = tl.load(alpha_ptr + this_run % samples)
    x = tl.load(x_ptr + base + lane, mask=owned)
    origin = tl.load(origin_ptr + base + lane, mask=owned)
    gradient = tl.load(gradient_ptr + base + lane, mask=owned)

    sign = (gradient > 0.0).to(tl.float32) - (gradient < 0.0).to(tl.float32)
    d = (x + alpha * sign) - origin
    d = tl.where(d < -eps, -eps, d)  # comparisons keep NaN, where minimum and maximum drop it
    d = tl.where(d > eps, eps, d)
    out = origin + d
    out = tl.where(out < 0.0, 0.0, out)
    out = tl.where(out > 1.0, 1.0, out)
    if EXACT:
        inward = tl.where(out > origin, -1, 1)  # values are in [0, 1], where neighbours are neighbouring integers
        inner = (out.to(tl.int32, bitcast=True) + inward).to(tl.float32, bitcast=True)
        distance = tl.abs(out.to(tl.float64) - origin.to(tl.float64))
        out = tl.where(distance > eps.to(tl.float64), inner, out)
    tl.store(out_ptr + base + lane, out, mask=owned)
