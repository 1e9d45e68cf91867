"""Every kernel with every backend: bytes per second over those of a large copy, L2 flushed, answers first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from fastsnn import functional
from fastsnn.ops import attack_step, backends
from fastsnn.ops.integrate_fire import Neuron

NEURON = Neuron(1.0, 0.0, None, True, "atan", 2.0, True)  # the paper's
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-2}  # of gradients, relative to the largest


class Case(NamedTuple):
    """An op on tensors: what it must move at least, and the call for a backend; `exact` compares bits."""

    op: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    bytes: int
    call: Callable[[str], torch.Tensor]
    exact: bool


def cases(sizes, device: torch.device) -> Iterator[Case]:
    """Yield the ops on the layers of a SEW-ResNet18; tensors live as long as their case is looked at."""
    for batch in sizes.kernel_batches:
        for dtype in (torch.float32, torch.bfloat16):
            for C, H in sizes.layers:
                yield from _neurons((sizes.T, batch, C, H, H), dtype, device)
        side = sizes.side
        images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, device=device)
        n = images.numel()
        yield Case(
            "phase_encode",
            tuple(images.shape),
            torch.uint8,
            n + 4 * n * sizes.T,
            lambda backend, images=images: functional.phase_encode(images, sizes.T, backend=backend),
            True,
        )
        x, gradient = (torch.randn(sizes.T, batch, 3, side, side, device=device) for _ in range(2))
        x, eps = x.sigmoid(), torch.full((batch,), 0.02, device=device)
        inputs = (x, x.clone(), gradient, eps, eps / 2)
        yield Case(
            "attack_step",
            tuple(x.shape),
            torch.float32,
            16 * x.numel(),
            lambda backend, inputs=inputs: attack_step.step(*inputs, 1, False, backend),
            True,
        )


def _neurons(shape, dtype, device) -> Iterator[Case]:
    x, residual, grad = (torch.randn(shape, device=device).to(dtype) for _ in range(3))
    scale, shift = torch.rand(shape[2], device=device) + 0.5, torch.randn(shape[2], device=device) / 4
    affine = {"scale": scale, "shift": shift}
    size = x.numel() * x.element_size()

    def forward(backend):
        return functional.integrate_fire(x, backend=backend)

    def fused(backend):
        return functional.integrate_fire(x, **affine, residual=residual, junction="add", backend=backend)

    def backward(backend, *affine):
        inputs = (grad, x, None, *(affine or (None, None)), None, None)
        return torch.ops.fastsnn.integrate_fire_backward(*inputs, *NEURON, backend, True)[0]

    yield Case("IF forward", shape, dtype, 2 * size, forward, True)
    yield Case("norm + IF + add, forward", shape, dtype, 3 * size, fused, True)
    yield Case("IF backward", shape, dtype, 3 * size, backward, False)
    yield Case("norm + IF, backward", shape, dtype, 3 * size, lambda backend: backward(backend, scale, shift), False)


def measure(card, sizes, clock) -> Iterator[dict]:
    """Yield a row for each case: seconds and share of the copy's bandwidth with every backend, and what is wrong."""
    names = ("triton", "cuda") if card.is_gpu else ("cpu",)
    missing = {name: backends.unavailable(name, card.device) for name in names}
    for name in names:
        if missing[name]:
            yield {"op": f"{name}: not here", "note": missing[name]}
    for case in cases(sizes, card.device):
        if clock.is_over():
            return
        row = {"op": case.op, "shape": list(case.shape), "dtype": str(case.dtype).removeprefix("torch.")}
        row["bytes"] = case.bytes
        expected = case.call("reference")
        for name in names:
            if missing[name]:
                continue
            wrong = _difference(case, case.call(name), expected)
            if wrong:
                row["wrong"] = f"{row.get('wrong', '')}{name}: {wrong}. "
            seconds = card.kernel_seconds(lambda case=case, name=name: case.call(name), sizes.rounds)
            row[name] = {"seconds": seconds, "of_copy": case.bytes / seconds / card.bandwidth()}
        timed = {name: row[name]["seconds"] for name in names if name in row}
        row["fastest"] = min(timed, key=timed.get, default="")
        yield row


def _difference(case: Case, got: torch.Tensor, expected: torch.Tensor) -> str:
    """Say how a result differs from the reference's; "" where it does not."""
    if case.exact:
        return "" if torch.equal(got, expected) else f"{int((got != expected).sum())} of {got.numel()} values differ"
    error = float((got.float() - expected.float()).abs().max() / expected.float().abs().max())
    return "" if error <= TOLERANCE[case.dtype] else f"off by {error:.1e} of the largest"  # NaN is not <= either
