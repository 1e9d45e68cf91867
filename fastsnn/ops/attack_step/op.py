"""attack_step as an op of torch. It has no gradient: attacks do not differentiate through their own steps."""

from __future__ import annotations

import torch

from .. import backends, check, dispatcher, layout

_LIBRARY = torch.library.Library("fastsnn", "FRAGMENT")
_LIBRARY.define(
    "attack_step(Tensor x, Tensor origin, Tensor gradient, Tensor eps, Tensor alpha, int batch_axis, bool exact,"
    " str? backend) -> Tensor"
)


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
    """Check the arguments and run the op; see functional.attack_step for what they mean."""
    check.tensor("x", x, (torch.float32,))
    for name, value in (("origin", origin), ("gradient", gradient)):
        check.companion(name, value, x.shape, "x", x.device)
        check.tensor(name, value, (torch.float32,))
    if batch_axis is None:
        batch_axis = default_batch_axis(x)
    check.integer("batch_axis", batch_axis, at_least=0, at_most=1)
    if x.dim() <= batch_axis:
        raise ValueError(f"x has shape {list(x.shape)}, expected a batch on axis {batch_axis}.")
    eps = per_sample("eps", eps, x, batch_axis)
    alpha = per_sample("alpha", alpha, x, batch_axis)
    return step(*(tensor.detach() for tensor in (x, origin, gradient)), eps, alpha, batch_axis, exact, backend)


def default_batch_axis(x: torch.Tensor) -> int:
    """Return 1 for encoded input [T, B, C, H, W], 0 for everything else (images [B, C, H, W])."""
    return 1 if x.dim() == 5 else 0


def per_sample(name: str, value: float | torch.Tensor, x: torch.Tensor, batch_axis: int) -> torch.Tensor:
    """Return `value` as a float32 tensor with one number, finite and not negative, for each sample of x."""
    samples = x.shape[batch_axis]
    if not isinstance(value, torch.Tensor):
        return torch.full((samples,), check.number(name, value, at_least=0), dtype=torch.float32, device=x.device)
    check.companion(name, value, (samples,), "the samples of x", x.device)
    value = value.float()
    wrong = ~(torch.isfinite(value) & (value >= 0))
    if not torch.compiler.is_compiling() and wrong.any():  # what a value is, a traced graph cannot ask
        raise ValueError(f"{name} holds {value[wrong][0].item()}, expected finite numbers of at least 0.")
    return value.contiguous()


def _forward(x, origin, gradient, eps, alpha, batch_axis, exact, backend):
    x = layout.dense(x)
    inputs = (x, layout.like(origin, x), layout.like(gradient, x), eps, alpha, batch_axis, exact)
    return backends.implementation("attack_step", backend, x.device).forward(*inputs)


def _forward_fake(x, *_):
    return torch.empty_like(layout.dense(x))


_LIBRARY.impl("attack_step", _forward, "CompositeExplicitAutograd")
torch.library.register_fake("fastsnn::attack_step", _forward_fake, lib=_LIBRARY)
_FORWARD = torch.ops.fastsnn.attack_step.default


def step(x, origin, gradient, eps, alpha, batch_axis: int, exact: bool, backend: str | None = None) -> torch.Tensor:
    """Run the op, for loops that checked their arguments once: no device is waited for."""
    call = _FORWARD if dispatcher.is_needed(x, origin, gradient) else _forward
    return call(x, origin, gradient, eps, alpha, batch_axis, exact, backend)
