"""`fastsnn doctor`: what is installed, which kernels run here and why others do not, and whether they compute rightly.

The self-check runs every op with every backend that can run against backend="reference", forward and backward, at odd
sizes: spikes must be equal bit for bit, gradients within 1e-6 of the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from . import functional
from .ops import backends
from .sweep import machine

_TOLERANCE = 1e-6  # of gradients, relative to the largest


class Check(NamedTuple):
    """One op on one device with one backend; `wrong` says how it differs from the reference, "" if it does not."""

    op: str
    backend: str
    device: str
    wrong: str


def main() -> int:
    """Print everything; return 1 if a check failed, else 0."""
    _print_table("versions", {name: version or "not installed" for name, version in machine.versions().items()})
    about = machine.describe()
    about["instruction_sets"] = ", ".join(about["instruction_sets"]) or "none: the C++ kernels do not run"
    about["gpus"] = ", ".join(about["gpus"]) or "none that torch sees"
    _print_table("machine", about)
    for device in _devices():
        reasons = {name: backends.unavailable(name, device) for name in backends.NAMES}
        runs = {name: f"does not run: {reason}" if reason else "runs" for name, reason in reasons.items()}
        _print_table(f"backends on {device}", runs)
    print("self-check against backend='reference'")
    checked = failed = 0
    for check in self_check():
        checked += 1
        failed += bool(check.wrong)
        verdict = f"FAILED: {check.wrong}" if check.wrong else "ok"
        print(f"  {check.op:<34} {check.backend:<8} {check.device:<6} {verdict}", flush=True)
    verdict = "all checks ok" if checked else "nothing to check: only the reference runs here"
    print(f"{failed} checks FAILED" if failed else verdict)
    return 1 if failed else 0


def self_check() -> Iterator[Check]:
    """Yield the result of every op's check with every backend that runs on this machine's devices."""
    for device in _devices():
        for backend in backends.NAMES:
            if backend == "reference" or backends.unavailable(backend, device):
                continue
            for op, compute in _OPS.items():
                yield Check(op, backend, str(device), _difference(compute, backend, device))


def _devices() -> list[torch.device]:
    return [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]


def _difference(compute: Callable, backend: str, device: torch.device) -> str:
    """Return how `backend` differs from the reference, in words."""
    try:
        got, expected = compute(backend, device), compute("reference", device)
    except Exception as error:  # whatever a kernel's compiler or loader throws is the finding
        return f"{type(error).__name__}: {error}"
    if not torch.equal(got[0], expected[0]):
        return f"{int((got[0] != expected[0]).sum())} of {expected[0].numel()} values differ"
    for name, ours, theirs in zip(("input", "scale", "shift", "residual"), got[1:], expected[1:], strict=False):
        error = float((ours - theirs).abs().max() / theirs.abs().max())
        if not error <= _TOLERANCE:
            return f"gradient of {name} is off by {error:.1e} (relative), allowed {_TOLERANCE:.0e}"
    return ""


def _integrate_fire(junction: str | None = None, **neuron) -> Callable:
    """Return what computes output and gradients of integrate_fire; a junction brings an affine and a residual."""

    def compute(backend: str, device: torch.device) -> list[torch.Tensor]:
        draw = _numbers(device)
        x, inputs = draw(7, 3, 5, 9, 11).requires_grad_(), {}
        if junction is not None:
            inputs = {"scale": draw(5), "shift": draw(5), "residual": draw(7, 3, 5, 9, 11)}
            inputs = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
        out = functional.integrate_fire(x, **inputs, **neuron, junction=junction, backend=backend)
        return [out.detach(), *torch.autograd.grad(out, [x, *inputs.values()], draw(7, 3, 5, 9, 11))]

    return compute


def _phase_encode(backend: str, device: torch.device) -> list[torch.Tensor]:
    images = (_numbers(device)(3, 3, 13, 17) * 100).to(torch.uint8)
    return [functional.phase_encode(images, T=11, K=8, weighted=True, backend=backend)]


def _attack_step(backend: str, device: torch.device) -> list[torch.Tensor]:
    draw = _numbers(device)
    origin = draw(7, 3, 3, 13, 11).clamp(0, 1)
    eps = torch.tensor([0.0, 6 / 255, 0.3], device=device)
    x = (origin + 0.02 * draw(*origin.shape)).clamp(0, 1)
    return [functional.attack_step(x, origin, draw(*origin.shape), eps, 0.01, backend=backend)]


def _numbers(device: torch.device) -> Callable[..., torch.Tensor]:
    """Return a source of normal numbers, the same for every backend."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator).to(device)


_OPS = {
    "integrate_fire": _integrate_fire(),
    "integrate_fire, soft reset": _integrate_fire(v_reset=None, detach_reset=False),
    "integrate_fire, leaky": _integrate_fire(tau=2.0, surrogate="sigmoid", alpha=4.0),
    "integrate_fire, affine + residual": _integrate_fire("add"),
    "phase_encode": _phase_encode,
    "attack_step": _attack_step,
}


def _print_table(title: str, entries: dict) -> None:
    print(title)
    for name, value in entries.items():
        print(f"  {name:<17} {value}")
    print()
