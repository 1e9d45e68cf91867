"""integrate_fire in plain torch: the specification, the tests' oracle, and the last fallback.

    current = scale[c] * x[t] + shift[c]                    batch norm's affine, where one is given
    h[t] = v[t-1] + current                                 charge, IF
    h[t] = v[t-1] + (current - (v[t-1] - v_rest)) / tau     charge, LIF
    h[t] = v[t-1] - (v[t-1] - v_rest) / tau + current       charge, LIF whose input does not decay
    s[t] = h[t] >= v_threshold                              fire
    v[t] = v_reset where s[t] else h[t]                     hard reset
    v[t] = h[t] - s[t] * v_threshold                        soft reset
    y[t] = s + r | s * r | r * (1 - s) | s * (1 - r)        junction with a residual r: add, and, iand, and_not

and backwards, with sg the surrogate at u = h - v_threshold:

    gs[t] += gv[t] * (v_reset - h[t])                       through a hard reset that is not detached
    gs[t] -= gv[t] * v_threshold                            through a soft one
    gh[t] = gs[t] * sg + gv[t] where not s[t]               hard reset
    gh[t] = gs[t] * sg + gv[t]                              soft reset; gx and gv[t-1] follow from gh as h from x and v

The order of operations is that of SpikingJelly 2.0 on a CPU, so that spikes and gradients equal it bit for bit.
One difference is meant: an infinite h resets to v_reset (SpikingJelly multiplies, and gets NaN). Everything is computed
in float32, whatever the storage type.
"""

from __future__ import annotations

import math

import torch

from .neuron import Neuron


def forward(
    x_seq: torch.Tensor,
    v_init: torch.Tensor | None,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
    residual: torch.Tensor | None,
    junction: str | None,
    neuron: Neuron,
) -> torch.Tensor:
    """Return spikes, or the junction's output, in the shape and dtype of x_seq [T, B, ...]."""
    out = torch.empty_like(x_seq)
    for t, (_, spikes) in enumerate(_walk(x_seq, v_init, scale, shift, neuron)):
        out[t] = spikes if residual is None else _join(spikes, residual[t].float(), junction)
    return out


def backward(
    grad_out: torch.Tensor,
    x_seq: torch.Tensor,
    v_init: torch.Tensor | None,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
    residual: torch.Tensor | None,
    junction: str | None,
    neuron: Neuron,
    through_affine: bool,
    slopes: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return the gradients at x_seq (before or after its affine), at v_init, and at the residual.

    The last is None without a residual, and for "add", where it is grad_out itself. `slopes` [T, B, ...] stand for the
    surrogate's values, where an attacker chooses them one by one.
    """
    trace = list(_walk(x_seq, v_init, scale, shift, neuron))
    grad_x = torch.empty_like(x_seq)
    grad_residual = None if junction in (None, "add") else torch.empty_like(x_seq)
    carry = torch.zeros_like(x_seq[0], dtype=torch.float32)
    for t in reversed(range(len(trace))):
        h, spikes = trace[t]
        grad = grad_out[t].float()
        if grad_residual is not None:
            grad, grad_residual[t] = unjoin(grad, spikes, residual[t].float(), junction)
        u = h - neuron.v_threshold
        sg = surrogate_gradient(u, neuron.surrogate, neuron.alpha) if slopes is None else slopes[t]
        if not neuron.detach_reset and neuron.v_reset is None:
            grad = grad - carry * neuron.v_threshold
        elif not neuron.detach_reset:
            grad = grad - carry * h + carry * neuron.v_reset
        gh = grad * sg + (carry if neuron.v_reset is None else torch.where(spikes > 0, 0.0, carry))
        leak = None if neuron.tau is None else gh / _on(h, neuron.tau)
        grad_current = leak if leak is not None and neuron.decay_input else gh
        carry = gh if leak is None else gh - leak
        grad_x[t] = grad_current * _channels(scale, h) if scale is not None and through_affine else grad_current
    return grad_x, carry, grad_residual


def above_threshold(x_seq: torch.Tensor, neuron: Neuron) -> torch.Tensor:
    """Return u = h - v_threshold of every step, like x_seq [T, B, ...] in float32."""
    return torch.stack([h - neuron.v_threshold for h, _ in _walk(x_seq, None, None, None, neuron)])


def surrogate_gradient(u: torch.Tensor, surrogate: str, alpha: float | torch.Tensor) -> torch.Tensor:
    """Return the surrogate of ds/dh at u = h - v_threshold, in the parametrisation of SpikingJelly.

    atan (alpha/2) / (1 + (pi/2 alpha u)^2); sigmoid alpha s (1 - s), s = sigmoid(alpha u); triangle
    max(0, alpha - alpha^2 |u|), which is ZIF(1/alpha); rectangle alpha [|u| < 1 / (2 alpha)].
    """
    if surrogate == "atan":
        z = u * (math.pi / 2 * alpha)
        return (alpha / 2) / (1 + z * z)
    if surrogate == "sigmoid":
        s = torch.sigmoid(alpha * u)
        return (1 - s) * s * alpha
    if surrogate == "triangle":
        return (alpha - alpha * alpha * u.abs()).clamp_min(0)
    return alpha * (u.abs() < 0.5 / alpha).to(u)


def _walk(x_seq, v_init, scale, shift, neuron):
    """Yield (h, spikes) of every step, in float32."""
    start = torch.full_like(x_seq[0], neuron.v_rest, dtype=torch.float32)
    v = start if v_init is None else v_init.float()
    for x in x_seq:
        current = x.float() if scale is None else x.float() * _channels(scale, x) + _channels(shift, x)
        if neuron.tau is None:
            h = v + current
        elif neuron.decay_input:
            h = v + (current - (v - neuron.v_rest)) / _on(v, neuron.tau)
        else:
            h = v - (v - neuron.v_rest) / _on(v, neuron.tau) + current
        fired = h >= neuron.v_threshold
        spikes = fired.float()
        v = h - spikes * neuron.v_threshold if neuron.v_reset is None else torch.where(fired, neuron.v_reset, h)
        yield h, spikes


def _join(s, r, junction):
    if junction == "add":
        return s + r
    if junction == "and":
        return s * r
    return r * (1 - s) if junction == "iand" else s * (1 - r)


def unjoin(grad, s, r, junction):
    """Return the gradients at the spikes and at the residual, for a junction that multiplies."""
    if junction == "and":
        return grad * r, grad * s
    return (-(grad * r), grad * (1 - s)) if junction == "iand" else (grad * (1 - r), -(grad * s))


def _channels(values, x):
    """Give [C] the shape that broadcasts over one step [B, C, ...]."""
    return values.float().view(-1, *(1,) * (x.dim() - 2))


def _on(v, value):
    """A 0-dim tensor on v's device: dividing by a Python number multiplies by its inverse on a GPU."""
    return torch.tensor(value, dtype=torch.float32, device=v.device)
