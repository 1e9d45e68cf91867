"""integrate_fire on a GPU, in Triton. Specification: reference.py.

    h[t] = v[t-1] + scale[c] * x[t] + shift[c]     charge, with batch norm's affine in front
    s[t] = h[t] >= v_threshold                     fire
    v[t] = v_reset where s[t] else h[t]            reset
    y[t] = s[t] (+) residual[t]                    junction: add, and, iand, and_not

One program owns BLOCK neurons and walks T steps with v in registers: 4 bytes read and 4 written per neuron and step
(float32). The backward pass walks forward once to recompute h (bit for bit), then back. Up to 16 steps every h stays
in registers: 8 bytes read, 4 written. Longer sequences go in spans of 8 steps: v is noted where each begins and h
recomputed from there, at most 12.5 bytes read and 4.5 written. Products are never contracted into FMAs, so spikes and
gradients equal the reference's (the sigmoid's gradient to 1e-6: its exponential is another).
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from .. import layout
from .aligned import aligned
from .neuron import Neuron

_WARPS = 4  # small blocks, so that the small maps of a SEW-ResNet still spread over a GPU
_BLOCK = 4 * 32 * _WARPS  # four neurons per thread: loads of 16 bytes in float32
_LONGEST, _SPAN = 16, 8  # T in registers, else steps per span: 16 take 149 to 246 registers of 255, 32 spill (sm_90)
_OPTIONS = {"num_warps": _WARPS, "enable_fp_fusion": False}


def forward(x_seq, v_init, scale, shift, residual, junction, neuron: Neuron) -> torch.Tensor:
    """See reference.forward."""
    out = torch.empty_like(x_seq)
    if x_seq.numel():
        inputs = aligned(x_seq, v_init, scale, shift, residual)
        with torch.cuda.device_of(x_seq):
            integrate_fire_fwd_kernel[_grid(x_seq)](
                *inputs,
                out,
                *_sizes(x_seq, scale),
                *(neuron.v_threshold, neuron.v_reset, neuron.tau),
                *(neuron.decay_input, junction, *_spans(x_seq), _BLOCK),
                **_OPTIONS,
            )
    return out


def backward(grad_out, x_seq, v_init, scale, shift, residual, junction, neuron: Neuron, through_affine: bool):
    """See reference.backward."""
    if junction == "add":  # its gradients are grad_out itself
        residual = junction = None
    grad_x = torch.empty_like(x_seq)
    grad_v_init = None if v_init is None else torch.empty_like(x_seq[0], dtype=torch.float32)
    grad_residual = None if junction is None else torch.empty_like(x_seq)
    if x_seq.numel():
        inputs = aligned(x_seq, v_init, scale, shift, residual)
        spans, span = _spans(x_seq)
        notes = x_seq.new_empty((spans - 1, *x_seq.shape[1:]), dtype=torch.float32) if spans > 1 else None
        with torch.cuda.device_of(x_seq):
            integrate_fire_bwd_kernel[_grid(x_seq)](
                *inputs,
                *(layout.like(grad_out, x_seq), grad_x, grad_v_init, grad_residual, notes),
                *_sizes(x_seq, scale),
                *(neuron.v_threshold, neuron.v_reset, neuron.tau, *_width(neuron)),
                *(neuron.decay_input, neuron.detach_reset, neuron.surrogate, junction, through_affine),
                *(spans, span, _BLOCK),
                **_OPTIONS,
            )
    return grad_x, grad_v_init, grad_residual


@triton.jit
def integrate_fire_fwd_kernel(
    x_ptr,  # [T, neurons], as residual and out
    v_init_ptr,  # [neurons] or None
    scale_ptr,  # [channels] or None
    shift_ptr,  # [channels] or None
    residual_ptr,  # None without a junction
    out_ptr,
    T,
    neurons: tl.int64,  # t * neurons can pass 2^31
    channels,
    channel_inner,
    v_threshold,
    v_reset,  # None: soft reset
    tau,  # None: IF
    DECAY_INPUT: tl.constexpr,
    JUNCTION: tl.constexpr,
    SPANS: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the spikes, or the junction's output, of BLOCK neurons over T steps."""
    base, lane, count = _neurons(neurons, BLOCK)
    v = _start(v_init_ptr, base, lane, count, v_reset, BLOCK)
    scale, shift = None, None
    if scale_ptr is not None:
        channel = _channel(base, lane, channels, channel_inner)
        scale, shift = tl.load(scale_ptr + channel).to(tl.float32), tl.load(shift_ptr + channel).to(tl.float32)
    for span in range(SPANS):
        first = span * SPAN
        x_span = _load_span(x_ptr, first, T, neurons, base, lane, count, SPAN)
        residual_span = _load_span(residual_ptr, first, T, neurons, base, lane, count, SPAN)
        for k in tl.static_range(SPAN):
            _, y, v = _fire(v, x_span[k], scale, shift, v_threshold, v_reset, tau, DECAY_INPUT)
            if JUNCTION is not None:
                y = _join(y, residual_span[k], JUNCTION)
            tl.store(out_ptr + ((first + k) * neurons + base) + lane, y, mask=_within(lane, count, first + k, T))


@triton.jit
def integrate_fire_bwd_kernel(
    x_ptr,  # [T, neurons], as residual, grad_out, grad_x and grad_residual
    v_init_ptr,  # [neurons] or None
    scale_ptr,  # [channels] or None
    shift_ptr,  # [channels] or None
    residual_ptr,  # None without a junction that needs it
    grad_out_ptr,
    grad_x_ptr,
    grad_v_init_ptr,  # [neurons] or None
    grad_residual_ptr,  # None without residual
    notes_ptr,  # [spans before the last, neurons]: v where each begins; None where T is one span
    T,
    neurons: tl.int64,
    channels,
    channel_inner,
    v_threshold,
    v_reset,
    tau,
    width,  # of the surrogate, see _width
    height,
    DECAY_INPUT: tl.constexpr,
    DETACH_RESET: tl.constexpr,
    SURROGATE: tl.constexpr,
    JUNCTION: tl.constexpr,
    THROUGH_AFFINE: tl.constexpr,
    SPANS: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradients of BLOCK neurons over T steps."""
    base, lane, count = _neurons(neurons, BLOCK)
    v = _start(v_init_ptr, base, lane, count, v_reset, BLOCK)
    scale, shift = None, None
    if scale_ptr is not None:
        channel = _channel(base, lane, channels, channel_inner)
        scale, shift = tl.load(scale_ptr + channel).to(tl.float32), tl.load(shift_ptr + channel).to(tl.float32)
    if SPANS > 1:
        for span in range(SPANS - 1):
            tl.store(notes_ptr + (span * neurons + base) + lane, v, mask=lane < count)
            x_span = _load_span(x_ptr, span * SPAN, T, neurons, base, lane, count, SPAN)
            for k in tl.static_range(SPAN):
                _, _, v = _fire(v, x_span[k], scale, shift, v_threshold, v_reset, tau, DECAY_INPUT)
        tl.debug_barrier()  # below, a thread may read what another one wrote

    carry = tl.zeros([BLOCK], tl.float32)
    for span in range(SPANS - 1, -1, -1):
        first = span * SPAN
        if SPANS > 1:  # the last span's v is still at hand
            noted = lane < tl.where(span < SPANS - 1, count, 0)
            v = tl.load(notes_ptr + (span * neurons + base) + lane, mask=noted, other=v)
        x_span = _load_span(x_ptr, first, T, neurons, base, lane, count, SPAN)
        grad_span = _load_span(grad_out_ptr, first, T, neurons, base, lane, count, SPAN)
        residual_span = _load_span(residual_ptr, first, T, neurons, base, lane, count, SPAN)
        h_span = ()
        for k in tl.static_range(SPAN):
            h, _, v = _fire(v, x_span[k], scale, shift, v_threshold, v_reset, tau, DECAY_INPUT)
            h_span += (h,)
        for k in tl.static_range(SPAN - 1, -1, -1):
            if first + k < T:  # a branch per step also keeps LLVM from computing all surrogates first and spilling
                at = (first + k) * neurons + base
                h, grad = h_span[k], grad_span[k]
                if JUNCTION is not None:
                    spikes = (h >= v_threshold).to(tl.float32)
                    grad, grad_residual = _unjoin(grad, spikes, residual_span[k], JUNCTION)
                    tl.store(grad_residual_ptr + at + lane, grad_residual, mask=lane < count)
                grad_current, carry = _unfire(
                    grad, carry, h, v_threshold, v_reset, tau, width, height, DECAY_INPUT, DETACH_RESET, SURROGATE
                )
                if THROUGH_AFFINE and scale_ptr is not None:
                    grad_current = grad_current * scale
                tl.store(grad_x_ptr + at + lane, grad_current, mask=lane < count)
    if grad_v_init_ptr is not None:
        tl.store(grad_v_init_ptr + base + lane, carry, mask=lane < count)


@triton.jit
def _neurons(neurons, BLOCK: tl.constexpr):
    """Return this program's neurons as base (64 bits) + lane (32 bits, to save registers), and how many exist."""
    base = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    return base, lane, tl.minimum(neurons - base, BLOCK).to(tl.int32)


@triton.jit
def _within(lane, count, t, T):
    """Return which lanes hold a neuron at step t: none past the last step."""
    return lane < tl.where(t < T, count, 0)


@triton.jit
def _start(v_init_ptr, base, lane, count, v_reset, BLOCK: tl.constexpr):
    """Return v before the first step."""
    if v_init_ptr is not None:
        v = tl.load(v_init_ptr + base + lane, mask=lane < count)
    else:
        v = tl.full([BLOCK], 0.0 if v_reset is None else v_reset, tl.float32)
    return v


@triton.jit
def _channel(base, lane, channels, channel_inner):
    """Return each neuron's channel, (i // channel_inner) % channels."""
    runs = base // channel_inner  # dividing 64 bits is slow: once per program, then in 32 bits for each neuron
    offset = (base - runs * channel_inner).to(tl.int32) + lane
    return ((runs % channels).to(tl.int32) + offset // channel_inner) % channels


@triton.jit
def _load_span(ptr, first, T, neurons, base, lane, count, SPAN: tl.constexpr):
    """Return steps first to first + SPAN of a tensor, in float32: loads cannot move above stores, so all come first."""
    span = ()
    if ptr is not None:
        for k in tl.static_range(SPAN):
            x = tl.load(ptr + ((first + k) * neurons + base) + lane, mask=_within(lane, count, first + k, T))
            span += (x.to(tl.float32),)
    return span


@triton.jit
def _fire(v, x, scale, shift, v_threshold, v_reset, tau, DECAY_INPUT: tl.constexpr):
    """Return h, the spikes, and the next v."""
    current = x if scale is None else x * scale + shift
    if tau is None:
        h = v + current
    else:
        above_rest = v if v_reset is None else v - v_reset
        h = v + tl.div_rn(current - above_rest, tau) if DECAY_INPUT else v - tl.div_rn(above_rest, tau) + current
    fired = h >= v_threshold
    spikes = fired.to(tl.float32)
    v = h - spikes * v_threshold if v_reset is None else tl.where(fired, v_reset, h)
    return h, spikes, v


@triton.jit
def _unfire(
    grad,
    carry,
    h,
    v_threshold,
    v_reset,
    tau,
    width,
    height,
    DECAY_INPUT: tl.constexpr,
    DETACH_RESET: tl.constexpr,
    SURROGATE: tl.constexpr,
):
    """Return the gradients at a step's current and at the v before it, from `grad` at its spikes, `carry` at its v."""
    sg = _surrogate_gradient(h - v_threshold, width, height, SURROGATE)
    if v_reset is None:
        grad = grad if DETACH_RESET else grad - carry * v_threshold
        past = carry
    else:
        grad = grad if DETACH_RESET else grad - carry * h + carry * v_reset
        past = tl.where(h >= v_threshold, 0.0, carry)
    gh = grad * sg + past
    if tau is None:
        grad_current, carry = gh, gh
    else:
        leak = tl.div_rn(gh, tau)
        grad_current, carry = leak if DECAY_INPUT else gh, gh - leak
    return grad_current, carry


@triton.jit
def _surrogate_gradient(u, width, height, SURROGATE: tl.constexpr):
    """Return the surrogate of ds/dh at u = h - v_threshold."""
    if SURROGATE == "atan":
        z = u * width
        sg = tl.div_rn(1.0, 1.0 + z * z) * height  # rounded twice, as torch divides a number by a tensor
    elif SURROGATE == "sigmoid":
        s = tl.div_rn(1.0, 1.0 + tl.exp(-(u * width)))
        sg = (1.0 - s) * s * height
    elif SURROGATE == "triangle":
        d = height - width * tl.abs(u)
        sg = tl.where(d < 0.0, 0.0, d)  # NaN stays NaN
    else:
        sg = tl.where(tl.abs(u) < width, height, 0.0)
    return sg


@triton.jit
def _join(s, r, JUNCTION: tl.constexpr):
    """Return the junction's output of spikes s and residual r."""
    if JUNCTION == "add":
        y = s + r
    elif JUNCTION == "and":
        y = s * r
    elif JUNCTION == "iand":
        y = r * (1.0 - s)
    else:
        y = s * (1.0 - r)
    return y


@triton.jit
def _unjoin(grad, s, r, JUNCTION: tl.constexpr):
    """Return the gradients at spikes s and residual r."""
    if JUNCTION == "and":
        grad_s, grad_r = grad * r, grad * s
    elif JUNCTION == "iand":
        grad_s, grad_r = grad * r * -1.0, grad * (1.0 - s)  # not -x: for older Tritons that is 0 - x, which loses -0
    else:
        grad_s, grad_r = grad * (1.0 - r), grad * s * -1.0
    return grad_s, grad_r


def _sizes(x_seq, scale) -> tuple[int, int, int, int]:
    """Return T, neurons, channels, and how many neighbours in memory share a channel."""
    T, neurons = x_seq.shape[0], x_seq.numel() // x_seq.shape[0]
    return (T, neurons, 1, 1) if scale is None else (T, neurons, scale.numel(), layout.channel_inner(x_seq))


def _grid(x_seq) -> tuple[int]:
    return (triton.cdiv(x_seq.numel() // x_seq.shape[0], _BLOCK),)


def _spans(x_seq) -> tuple[int, int]:
    """Return into how many spans T is cut, and the steps of each."""
    T = x_seq.shape[0]
    span = T if T <= _LONGEST else _SPAN
    return triton.cdiv(T, span), span


def _width(neuron: Neuron) -> tuple[float, float]:
    """Return a surrogate's width and height, rounded once to float32 as torch rounds a Python number."""
    alpha = neuron.alpha
    return {
        "atan": (math.pi / 2 * alpha, alpha / 2),
        "sigmoid": (alpha, alpha),
        "triangle": (alpha * alpha, alpha),
        "rectangle": (0.5 / alpha, alpha),
    }[neuron.surrogate]
