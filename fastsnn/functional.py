"""The ops under their public names."""

from __future__ import annotations

import torch

from .ops import attack_step as _attack_step
from .ops import integrate_fire as _integrate_fire
from .ops import phase_encode as _phase_encode

__all__ = ["attack_step", "integrate_fire", "multistep_if", "multistep_lif", "phase_encode"]


def integrate_fire(
    x_seq: torch.Tensor,
    *,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    tau: float | None = None,
    decay_input: bool = True,
    surrogate: str = "atan",
    alpha: float = 2.0,
    detach_reset: bool = True,
    v_init: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    junction: str | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Spikes of a layer of integrate-and-fire neurons over T steps, in one pass (Fang et al. 2021, eq. 1 to 3).

    Charge h = v + scale*x + shift (leaky with tau), fire h >= v_threshold, reset, and combine with a residual. No state
    is kept between calls. Differentiable once, in x_seq, v_init, scale, shift and residual; the membrane is float32
    whatever the storage type. Bit for bit the numbers of SpikingJelly 2.0.

    Args:
        x_seq: input current [T, B, ...], float32, float16 or bfloat16; contiguous and channels-last frames are walked
            as they are, anything else is copied first.
        v_threshold: firing threshold; 1 as in SpikingJelly and the paper.
        v_reset: voltage after a spike and at the start; None for soft reset (subtract v_threshold, start at 0).
        tau: time constant of an LIF neuron in steps, above 1; None for IF.
        decay_input: whether an LIF neuron divides its input by tau too.
        surrogate: "atan", "sigmoid", "triangle" or "rectangle"; see ops/integrate_fire/reference.py.
        alpha: inverse width of the surrogate; 2 as in the paper.
        detach_reset: keep the reset out of the backward pass, as SEW-ResNets do (SpikingJelly's default is False).
        v_init: voltage before the first step [B, ...].
        scale: factor per channel [C] in front of the charge (batch norm's), for x_seq [T, B, C, ...]; with shift.
        shift: summand per channel [C].
        residual: like x_seq, combined with the spikes s by `junction`.
        junction: "add" s + r, "and" s * r, "iand" r * (1 - s), "and_not" s * (1 - r).
        backend: "reference", "cpu", "triton", "cuda", or None for the best that works on x_seq's device.

    Returns:
        Spikes (0 or 1), or the junction's output, in the shape and dtype of x_seq.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it, what came, and what was expected.
        RuntimeError: the named backend cannot run here.
    """
    neuron = _integrate_fire.Neuron(v_threshold, v_reset, tau, decay_input, surrogate, alpha, detach_reset)
    neuron = _integrate_fire.checked(neuron)
    tensors = {"v_init": v_init, "scale": scale, "shift": shift, "residual": residual}
    return _integrate_fire.integrate_fire(x_seq, neuron, junction=junction, backend=backend, **tensors)


def multistep_if(
    x_seq: torch.Tensor,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    surrogate: str = "atan",
    alpha: float = 2.0,
    detach_reset: bool = True,
    v_init: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Spikes of a layer of IF neurons; `integrate_fire` without its options, arguments as there."""
    return integrate_fire(
        x_seq,
        v_threshold=v_threshold,
        v_reset=v_reset,
        surrogate=surrogate,
        alpha=alpha,
        detach_reset=detach_reset,
        v_init=v_init,
        backend=backend,
    )


def multistep_lif(
    x_seq: torch.Tensor,
    tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    surrogate: str = "atan",
    alpha: float = 2.0,
    detach_reset: bool = True,
    v_init: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Spikes of a layer of leaky neurons; `integrate_fire` with tau (2 as in SpikingJelly), arguments as there."""
    return integrate_fire(
        x_seq,
        v_threshold=v_threshold,
        v_reset=v_reset,
        tau=tau,
        decay_input=decay_input,
        surrogate=surrogate,
        alpha=alpha,
        detach_reset=detach_reset,
        v_init=v_init,
        backend=backend,
    )


def phase_encode(
    images: torch.Tensor,
    T: int = 10,
    K: int = 8,
    *,
    weighted: bool = False,
    straight_through: bool = False,
    backend: str | None = None,
) -> torch.Tensor:
    """Phase coding: the K bits of every pixel as spikes, most significant first, with period K (Kim et al. 2018).

    On uint8 exactly SpikingJelly's WeightedPhaseEncoder(8) of pixel / 256, but stateless, and for any T.

    Args:
        images: uint8 pixels, or floats in [0, 1], which are quantised to round(x * (2^K - 1)); any shape.
        T: steps; 10 as in the paper.
        K: phases (bits), 1 to 16; 8 as in the paper. A uint8 pixel gives the first K bits of pixel / 256.
        weighted: give the spike at step t the weight 2^-(1 + t mod K), as in the paper's text (its code does not).
        straight_through: let the gradient through as if every step were the image itself (times its weight); without
            it the result is cut from the graph, as every encoder of SpikingJelly is.
        backend: "reference", "cpu", "triton", "cuda", or None for the best that works.

    Returns:
        float32 spikes [T, *images.shape].

    Raises:
        ValueError, TypeError: an argument is wrong, or images leave [0, 1].
    """
    options = {"weighted": weighted, "straight_through": straight_through, "backend": backend}
    return _phase_encode.phase_encode(images, T, K, **options)


def attack_step(
    x: torch.Tensor,
    origin: torch.Tensor,
    gradient: torch.Tensor,
    eps: float | torch.Tensor,
    alpha: float | torch.Tensor,
    *,
    batch_axis: int | None = None,
    exact: bool = True,
    backend: str | None = None,
) -> torch.Tensor:
    """One iteration of a sign-gradient attack in the Linf ball, in one pass (Madry et al. 2017, eq. 2).

    clip(origin + clip(x + alpha * sign(gradient) - origin, -eps, eps), 0, 1), in the order of operations of
    torchattacks, foolbox and ART.

    Args:
        x: current iterate, float32.
        origin: centre of the ball, in [0, 1], like x.
        gradient: of the loss to ascend, like x.
        eps: budget, at least 0: a number, or one per sample [B].
        alpha: step, at least 0: a number, or one per sample [B].
        batch_axis: axis of the samples, 0 or 1; None means 1 for 5-D (encoded) x, else 0.
        exact: round inwards, so that |result - origin| <= eps holds exactly; without it, plain float32 rounding.
        backend: "reference", "cpu", "triton", "cuda", or None for the best that works.

    Returns:
        The next iterate, like x, cut from the graph.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it.
    """
    options = {"batch_axis": batch_axis, "exact": exact, "backend": backend}
    return _attack_step.attack_step(x, origin, gradient, eps, alpha, **options)
