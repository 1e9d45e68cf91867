"""What the tests of the ops share: random cases, the neuron in plain autograd, and comparisons to the last bit.

`integrate_fire_cases` draws a `Case`; `inputs_of` makes its tensors; `run` gives spikes and all gradients of one
backend; `assert_backends_agree` is the claim every backend has to meet. `plain_integrate_fire` is the same neuron
written a second time, step by step for autograd, in the storage type of its input.
"""

from __future__ import annotations

import contextlib
import functools
import math
from typing import NamedTuple

import torch
from hypothesis import strategies as st

from fastsnn import functional
from fastsnn.ops import library
from fastsnn.ops.integrate_fire import JUNCTIONS, SURROGATES, Neuron

LOW_PRECISION = (torch.float16, torch.bfloat16)
LAYOUTS = ("contiguous", "channels_last", "transposed", "sliced", "expanded", "unaligned")
GRAIN = 32768  # elements per thread in csrc/cpu/kernels.cpp
BLOCK = 512  # neurons per block in csrc/cpu/integrate_fire.inl


# Values and layouts


def values(shape, kind: str, generator: torch.Generator, dtype=torch.float32) -> torch.Tensor:
    """Eighths that hit thresholds exactly ("grid"), a normal distribution, or that with strange numbers in between."""
    if kind == "grid":
        return (torch.randint(-8, 13, shape, generator=generator) / 8).to(dtype)
    normal = torch.randn(shape, generator=generator) * 0.7 + 0.3
    if kind == "extreme":
        strange = torch.tensor([math.inf, -math.inf, math.nan, 3e38, -3e38, 1e-45, -1e-45, 1e-38, 0.0, -0.0, 1.0, 70.0])
        which = torch.randint(len(strange), shape, generator=generator)
        normal = torch.where(torch.rand(shape, generator=generator) < 0.1, strange[which], normal)
    return normal.to(dtype)


def lay_out(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """Store a contiguous tensor in another way; "expanded" also repeats its first sample (axis 1)."""
    if layout == "channels_last" and tensor.dim() >= 4:
        return tensor.movedim(-3, -1).contiguous().movedim(-1, -3)
    if layout == "transposed":
        return tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor
    if layout == "sliced":
        return tensor.repeat_interleave(2, -1)[..., ::2]
    if layout == "expanded" and tensor.dim() > 1:
        return tensor[:, :1].expand(tensor.shape)
    if layout == "unaligned":
        return torch.cat([tensor.new_zeros(1), tensor.reshape(-1)])[1:].view(tensor.shape)
    return tensor


# Random cases


class Case(NamedTuple):
    shape: tuple[int, ...]
    neuron: Neuron
    dtype: torch.dtype = torch.float32
    kind: str = "grid"
    layout: str = "contiguous"
    other_layout: str = "contiguous"  # of v_init, residual and the gradient that comes in
    v_init: bool = False
    affine: bool = False
    learns_affine: bool = True  # or scale and shift are constants, as in an attack
    wide: bool = False  # v_init, scale and shift in float32 whatever the dtype of x_seq
    junction: str | None = None
    seed: int = 0


NEURONS = st.builds(
    Neuron,
    v_threshold=st.sampled_from([1.0, 0.75, 0.1]),
    v_reset=st.sampled_from([0.0, None, -0.25, 0.3]),
    tau=st.sampled_from([None, 2.0, 1.3]),
    decay_input=st.booleans(),
    surrogate=st.sampled_from(SURROGATES),
    alpha=st.sampled_from([2.0, 1.0, 4.0, 0.3]),
    detach_reset=st.booleans(),
)


@st.composite
def shapes(draw, ranks=(1, 2, 3, 4)):
    """[T, ...] with odd sizes: a few neurons, more than one block, or enough for several threads."""
    T = draw(st.sampled_from([1, 2, 3, 5, 10, 10, 37, 100, 300]))
    size = draw(st.sampled_from(["few", "blocks", "threads"]))
    at_least = {"few": 1, "blocks": BLOCK + 1, "threads": 2 * (GRAIN // T + 1) + 1}[size]
    rank = draw(st.sampled_from(ranks))
    frame = draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank))
    axis = draw(st.integers(0, rank - 1))
    frame[axis] += at_least // math.prod(frame[:axis] + frame[axis + 1 :])
    return (T, *frame)


@st.composite
def integrate_fire_cases(draw, dtypes=(torch.float32,), kinds=("grid", "normal", "extreme"), neurons=NEURONS):
    shape = draw(shapes())
    return Case(
        shape,
        draw(neurons),
        draw(st.sampled_from(dtypes)),
        draw(st.sampled_from(kinds)),
        draw(st.sampled_from(LAYOUTS)),
        draw(st.sampled_from(LAYOUTS)),
        v_init=draw(st.booleans()),
        affine=len(shape) > 2 and draw(st.booleans()),
        learns_affine=draw(st.booleans()),
        wide=draw(st.booleans()),
        junction=draw(st.sampled_from([None, *JUNCTIONS])),
        seed=draw(st.integers(0, 1000)),
    )


# Running a case


def inputs_of(case: Case) -> dict[str, torch.Tensor]:
    """The tensors of a case by name, with the gradient that comes in as "grad_out"."""
    generator = torch.Generator().manual_seed(case.seed)
    make = functools.partial(values, kind=case.kind, generator=generator, dtype=case.dtype)
    parameters = torch.float32 if case.wide else case.dtype
    sigmoid = case.neuron.surrogate == "sigmoid"  # is 0, or nearly, far from the threshold: no infinity times that
    tame = functools.partial(make, kind="normal") if sigmoid and case.kind == "extreme" else make
    inputs = {"x_seq": lay_out(make(case.shape), case.layout), "grad_out": lay_out(tame(case.shape), case.other_layout)}
    if case.v_init:
        inputs["v_init"] = lay_out(make(case.shape[1:], dtype=parameters), case.other_layout)
    if case.affine:
        inputs["scale"], inputs["shift"] = (tame(case.shape[2:3], dtype=parameters) for _ in range(2))
    if case.junction:
        inputs["residual"] = lay_out(tame(case.shape), case.other_layout)
    return inputs


def run(case: Case, backend: str) -> dict[str, torch.Tensor]:
    """The output and all gradients by name, computed by one backend."""
    how = {**case.neuron._asdict(), "junction": case.junction, "backend": backend}
    return outputs_of(functools.partial(functional.integrate_fire, **how), inputs_of(case), _constants(case))


def run_plain(case: Case, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The same numbers from plain autograd, with every operation in `dtype`."""
    inputs = {name: tensor.to(dtype) for name, tensor in inputs_of(case).items()}
    function = functools.partial(plain_integrate_fire, neuron=case.neuron, junction=case.junction)
    return outputs_of(function, inputs, _constants(case))


def outputs_of(function, inputs: dict[str, torch.Tensor], constants=()) -> dict[str, torch.Tensor]:
    """What a function returns, and the gradients at its inputs but those named in `constants`."""
    inputs = dict(inputs)
    grad_out = inputs.pop("grad_out")
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items() if name not in constants}
    out = function(**{**inputs, **leaves})
    gradients = torch.autograd.grad(out, list(leaves.values()), grad_out)
    return {"out": out.detach(), **{f"grad_{name}": grad for name, grad in zip(leaves, gradients, strict=True)}}


def _constants(case: Case) -> tuple[str, ...]:
    return () if case.learns_affine else ("scale", "shift")


@contextlib.contextmanager
def instruction_set(name: str):
    library.use_instruction_set(name)
    try:
        yield
    finally:
        library.use_instruction_set(library.instruction_sets()[0])


@contextlib.contextmanager
def threads(n: int):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Comparing


def assert_same_bits(got: torch.Tensor, expected: torch.Tensor, what: str = "result", *, signed_zeros=True) -> None:
    """Equal shapes, types and bits; any NaN equals any other, and where asked for, 0 equals -0."""
    assert got.shape == expected.shape, f"{what}: shape {list(got.shape)}, expected {list(expected.shape)}"
    assert got.dtype == expected.dtype, f"{what}: {got.dtype}, expected {expected.dtype}"
    wrong = (got != expected) & ~(got.isnan() & expected.isnan())
    if signed_zeros:
        wrong |= (got == 0) & (got.signbit() != expected.signbit())
    if wrong.any():
        at = tuple(wrong.nonzero()[0].tolist())
        one, other = got[at].item(), expected[at].item()
        raise AssertionError(f"{what}: {int(wrong.sum())} of {got.numel()} differ, at {list(at)} {one} for {other}")


def assert_close(got: torch.Tensor, expected: torch.Tensor, tolerance: float, what: str = "result") -> None:
    """Nowhere further apart than `tolerance`; infinities and NaNs in the same places."""
    assert got.shape == expected.shape, f"{what}: shape {list(got.shape)}, expected {list(expected.shape)}"
    assert got.dtype == expected.dtype, f"{what}: {got.dtype}, expected {expected.dtype}"
    near = expected.isfinite() & ((got.double() - expected.double()).abs() <= tolerance)
    wrong = ~(near | (got == expected) | (got.isnan() & expected.isnan()))
    if wrong.any():
        at = tuple(wrong.nonzero()[0].tolist())
        one, other = got[at].item(), expected[at].item()
        where = f"{int(wrong.sum())} of {got.numel()} are off by over {tolerance:g}, at {list(at)} {one} for {other}"
        raise AssertionError(f"{what}: {where}")


def assert_backends_agree(case: Case, backend: str, against: str = "reference") -> None:
    """Spikes to the bit; gradients too, but within 1e-6 of the largest for the sigmoid, whose exp is not torch's."""
    got, expected = run(case, backend), run(case, against)
    assert got.keys() == expected.keys()
    for name in got:
        if name == "out" or case.neuron.surrogate != "sigmoid":
            assert_same_bits(got[name], expected[name], f"{name} of {case}")
        else:
            assert_close(got[name], expected[name], _tolerance(case, name, expected[name]), f"{name} of {case}")


def _tolerance(case: Case, name: str, expected: torch.Tensor) -> float:
    """1e-6 of the largest gradient there is or could be (at the threshold), plus one rounding to the storage type."""
    inputs = inputs_of(case)
    peak = case.neuron.alpha / 4 * largest(inputs["grad_out"]) * (largest(inputs["residual"]) if case.junction else 1)
    if name in ("grad_scale", "grad_shift"):  # sums over all of a channel's neurons and steps
        peak *= inputs["x_seq"].numel() / case.shape[2] * max(1, largest(inputs["x_seq"]))
    rounding = 0 if case.dtype == torch.float32 else torch.finfo(case.dtype).eps
    return (1e-6 + rounding) * max(peak, largest(expected))


def largest(tensor: torch.Tensor) -> float:
    """The largest finite magnitude."""
    magnitudes = tensor.double().abs()
    return magnitudes[magnitudes.isfinite()].max().item() if magnitudes.isfinite().any() else 0.0


# The neuron a second time


def plain_integrate_fire(
    x_seq, *, neuron: Neuron, v_init=None, scale=None, shift=None, residual=None, junction=None
) -> torch.Tensor:
    """integrate_fire as one would write it for autograd, with every operation in the dtype of x_seq."""
    threshold, reset, rest, tau = neuron.v_threshold, neuron.v_reset, neuron.v_reset or 0.0, neuron.tau
    v = torch.full_like(x_seq[0], rest) if v_init is None else v_init
    out = []
    for t, x in enumerate(x_seq):
        if scale is not None:
            per_channel = (-1, *(1,) * (x.dim() - 2))
            x = x * scale.view(per_channel) + shift.view(per_channel)
        if tau is None:
            h = v + x
        elif neuron.decay_input:
            h = v + (x - (v - rest)) / tau
        else:
            h = v - (v - rest) / tau + x
        s = _Fire.apply(h - threshold, neuron.surrogate, neuron.alpha)
        gate = s.detach() if neuron.detach_reset else s
        v = h - gate * threshold if reset is None else (1 - gate) * h + gate * reset
        r = None if residual is None else residual[t]
        if junction is None:
            out.append(s)
        elif junction == "add":
            out.append(s + r)
        elif junction == "and":
            out.append(s * r)
        else:
            out.append(r * (1 - s) if junction == "iand" else s * (1 - r))
    return torch.stack(out)


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, surrogate, alpha):
        ctx.save_for_backward(u)
        ctx.surrogate, ctx.alpha = surrogate, alpha
        return (u >= 0).to(u)

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return grad * surrogate_gradient(u, ctx.surrogate, ctx.alpha), None, None


def surrogate_gradient(u: torch.Tensor, surrogate: str, alpha: float) -> torch.Tensor:
    if surrogate == "atan":
        return alpha / 2 / (1 + (math.pi / 2 * alpha * u) ** 2)
    if surrogate == "sigmoid":
        return alpha * torch.sigmoid(alpha * u) * torch.sigmoid(-alpha * u)
    if surrogate == "triangle":
        return torch.relu(alpha - alpha**2 * u.abs())
    return torch.where(u.abs() < 1 / (2 * alpha), alpha, 0.0).to(u)


def assert_errs_at_most(times: float, got: torch.Tensor, plain: torch.Tensor, exact: torch.Tensor) -> None:
    """The rms error is within `times` that of a plain float32 result, or of rounding the exact one if that is more."""
    error, allowed, rounding = (got - exact).norm(), (plain - exact).norm(), exact.norm() * 2**-24
    assert error <= times * max(allowed, rounding), f"error {error:.3g}, plain {allowed:.3g}, rounding {rounding:.3g}"
