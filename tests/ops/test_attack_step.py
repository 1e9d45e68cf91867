import math
from fractions import Fraction

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsnn import functional
from fastsnn.ops import library

from . import cases

BACKENDS = ["reference", "cpu"]


def uniform(*shape, generator=None):
    """Numbers in [0, 1] with all bits of their mantissa; torch.rand(dtype=float32) gives multiples of 2^-24."""
    return torch.rand(shape, dtype=torch.float64, generator=generator).float()


def plain(x, origin, gradient, eps, alpha, batch_axis=0):
    """The step as torchattacks writes it."""
    per_sample = [-1 if axis == batch_axis else 1 for axis in range(x.dim())]
    eps, alpha = (torch.as_tensor(value).expand(x.shape[batch_axis]).view(per_sample) for value in (eps, alpha))
    delta = torch.clamp(x + alpha * gradient.sign() - origin, min=-eps, max=eps)
    return torch.clamp(origin + delta, min=0, max=1)


@st.composite
def steps(draw):
    """x, origin and gradient of any size and layout, corners of the unit interval included, with their budgets."""
    shape = draw(st.sampled_from([(1,), (7, 3), (3, 5, 2, 7), (2, 3, 4, 5, 6), (10, 2, 3, 33, 35), (3, 0), (2, 40001)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    batch_axis = draw(st.sampled_from([axis for axis in (0, 1) if axis < len(shape)]))
    eps, alpha = (draw(st.sampled_from([0.0, 6 / 255, 8 / 255, 0.3, 1.0, 1e-7])) for _ in range(2))
    if draw(st.booleans()):
        eps, alpha = (torch.rand(shape[batch_axis], generator=generator) * value for value in (eps, alpha))

    def unit():
        values, which = uniform(*shape, generator=generator), torch.randint(10, shape, generator=generator)
        return values.where(which > 0, 0.0).where(which < 9, 1.0).where(which != 1, values * 1e-12)

    origin, start = unit(), unit()
    gradient = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) > 0.1)
    per_sample = [-1 if axis == batch_axis else 1 for axis in range(len(shape))]
    budget = torch.as_tensor(eps).expand(shape[batch_axis]).reshape(per_sample)
    x = torch.where(start < 0.5, start, (origin + (start * 2 - 1) * budget).clamp(0, 1))
    layout = st.sampled_from(["contiguous", "channels_last", "transposed", "sliced", "unaligned"])
    x, origin, gradient = (cases.lay_out(tensor, draw(layout)) for tensor in (x, origin, gradient))
    return {"x": x, "origin": origin, "gradient": gradient, "eps": eps, "alpha": alpha, "batch_axis": batch_axis}


# First principles


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_moves_by_alpha_stops_at_eps_and_stays_in_the_unit_interval(backend, exact):
    origin = torch.tensor([0.5, 0.5, 0.5, 0.5, 1.0, 0.0, 0.5])
    x = torch.tensor([0.5, 0.5, 0.5, 0.625, 1.0, 0.0, 0.75])
    gradient = torch.tensor([3.0, -1e-30, 0.0, 1.0, 1.0, -1.0, 0.0])
    adv = functional.attack_step(x, origin, gradient, 0.1875, 0.125, exact=exact, backend=backend)
    assert adv.tolist() == [0.625, 0.375, 0.5, 0.6875, 1.0, 0.0, 0.6875]


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_sample_has_its_own_budget_and_step(backend):
    origin, gradient = torch.full((2, 3, 1, 1, 2), 0.5), torch.ones(2, 3, 1, 1, 2)
    eps, alpha = torch.tensor([0.0, 0.125, 0.25]), torch.tensor([1.0, 1.0, 0.0625])
    adv = functional.attack_step(origin, origin, gradient, eps, alpha, backend=backend)  # 5-D: the batch is axis 1
    assert adv[0, :, 0, 0, 0].tolist() == adv[1, :, 0, 0, 1].tolist() == [0.5, 0.625, 0.5625]
    images = functional.attack_step(origin[0], origin[0], gradient[0], eps, alpha, backend=backend)
    assert images[:, 0, 0, 0].tolist() == [0.5, 0.625, 0.5625]


# The budget is kept in exact arithmetic


@settings(max_examples=100)
@given(steps())
def test_no_result_leaves_the_ball_or_the_unit_interval(step):
    eps = torch.as_tensor(step["eps"], dtype=torch.float32).expand(step["x"].shape[step["batch_axis"]])
    for backend in BACKENDS:
        adv = functional.attack_step(**step, backend=backend)
        assert ((adv >= 0) & (adv <= 1)).all()
        budget = eps.double().view([-1 if axis == step["batch_axis"] else 1 for axis in range(adv.dim())])
        assert ((adv.double() - step["origin"].double()).abs() <= budget).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("eps", [6 / 255, 8 / 255, 0.03, 1e-6, 0.1, 1 / 3, 1.0, 0.0])
def test_the_budget_holds_in_rational_numbers_and_is_used_up(eps, backend):
    near_0, near_1, tiny = uniform(100) * eps, 1 - uniform(100) * eps, uniform(100) * 1e-9
    special = torch.tensor([0.0, 1.0, 1e-45, 1e-38, 0.5, eps])
    origin = torch.cat([uniform(500), near_0, near_1, tiny, special]).repeat(2)
    gradient = torch.ones_like(origin)
    gradient[len(origin) // 2 :] = -1
    adv = functional.attack_step(origin, origin, gradient, eps, 2.0, backend=backend)
    beyond = numpy.nextafter(adv.numpy(), numpy.where(gradient > 0, 2, -2).astype(numpy.float32))
    budget = Fraction(numpy.float32(eps).item())
    for x, y, z in zip(origin.tolist(), adv.tolist(), beyond.tolist(), strict=True):
        assert abs(Fraction(y) - Fraction(x)) <= budget and 0 <= y <= 1
        assert abs(Fraction(z) - Fraction(x)) > budget or not 0 <= z <= 1


def test_plain_rounding_leaves_the_ball_so_exactness_is_needed():
    origin, eps = uniform(10_000), numpy.float32(6 / 255).item()
    adv = functional.attack_step(origin, origin, torch.ones(10_000), eps, 1.0, exact=False)
    assert (adv.double() - origin.double() > eps).float().mean() > 0.01


@given(steps())
def test_exactness_moves_a_result_by_at_most_one_representable_number_towards_the_origin(step):
    for backend in BACKENDS:
        exact = functional.attack_step(**step, backend=backend)
        rounded = functional.attack_step(**step, exact=False, backend=backend)
        apart = exact.contiguous().view(torch.int32) - rounded.contiguous().view(torch.int32)
        assert apart.abs().amax() <= 1 if apart.numel() else True
        assert ((exact - step["origin"]).abs() <= (rounded - step["origin"]).abs()).all()


# Against plain torch, and the C++ kernel against the reference


@given(steps())
def test_without_exactness_the_bits_are_those_of_plain_torch(step):
    for backend in BACKENDS:
        cases.assert_same_bits(functional.attack_step(**step, exact=False, backend=backend), plain(**step))


@given(steps(), st.booleans())
def test_the_cpu_kernel_gives_the_bits_of_the_reference(step, exact):
    expected = functional.attack_step(**step, exact=exact, backend="reference")
    for name in library.instruction_sets():
        for n in (1, 2):
            with cases.instruction_set(name), cases.threads(n):
                got = functional.attack_step(**step, exact=exact, backend="cpu")
            cases.assert_same_bits(got, expected, f"{name} on {n} threads")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("batch_axis", [0, 1])
def test_either_axis_can_be_the_batch_in_any_layout(batch_axis, layout, backend):
    origin = cases.lay_out(uniform(2, 3, 4, 5, 6), layout)
    gradient = cases.lay_out(torch.randn(2, 3, 4, 5, 6), layout)
    step = {"eps": uniform(origin.shape[batch_axis]), "alpha": 1.0, "batch_axis": batch_axis}
    got = functional.attack_step(origin, origin, gradient, **step, exact=False, backend=backend)
    cases.assert_same_bits(got, plain(origin, origin, gradient, **step))


@pytest.mark.parametrize("backend", BACKENDS)
def test_budgets_may_be_views_and_of_low_precision(backend):
    origin, gradient, many = uniform(4, 5), torch.randn(4, 5), uniform(12) / 16
    for eps in (many[::3], many[:1].expand(4), many[:4].half(), many[:4].bfloat16()):
        got = functional.attack_step(origin, origin, gradient, eps, eps, exact=False, backend=backend)
        cases.assert_same_bits(got, plain(origin, origin, gradient, eps.float(), eps.float()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_budgets_are_float32_whatever_torchs_default_dtype(backend):
    origin, gradient = torch.rand(100), torch.randn(100)
    expected = functional.attack_step(origin, origin, gradient, 0.1, 0.1, backend=backend)
    torch.set_default_dtype(torch.float64)
    try:
        got = functional.attack_step(origin, origin, gradient, 0.1, 0.1, backend=backend)
    finally:
        torch.set_default_dtype(torch.float32)
    cases.assert_same_bits(got, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_of_nan_moves_nothing_and_infinite_ones_move_by_alpha(backend):
    x = torch.full((4,), 0.5)
    gradient = torch.tensor([math.nan, math.inf, -math.inf, -0.0])
    adv = functional.attack_step(x, x, gradient, 0.25, 0.125, backend=backend)
    assert adv.tolist() == [0.5, 0.625, 0.375, 0.5]


def test_the_result_is_new_and_cut_from_the_graph():
    x, gradient = torch.rand(3, 4).requires_grad_(), torch.randn(3, 4)
    before = x.detach().clone()
    adv = functional.attack_step(x, x, gradient, 0.1, 0.1)
    assert not adv.requires_grad
    cases.assert_same_bits(x.detach(), before)


# The op as torch sees it


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
def test_opcheck_accepts_the_op(layout, backend):
    tensors = [cases.lay_out(torch.rand(2, 3, 4, 5, 6), layout), torch.rand(2, 3, 4, 5, 6), torch.randn(2, 3, 4, 5, 6)]
    arguments = (*tensors, torch.rand(3), torch.rand(3), 1, True, backend)
    torch.library.opcheck(torch.ops.fastsnn.attack_step.default, arguments)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_maps_a_step_over_networks():
    x, gradients = torch.rand(2, 3), torch.randn(4, 2, 3)
    got = torch.func.vmap(lambda gradient: functional.attack_step(x, x, gradient, 0.1, 0.05))(gradients)
    for i in range(4):
        cases.assert_same_bits(got[i], functional.attack_step(x, x, gradients[i], 0.1, 0.05))


# Bad input

X = torch.full((3, 2), 0.5)


BAD_INPUT = [
    ({"x": X.half()}, TypeError, "x has dtype float16, expected one of float32"),
    ({"x": X.double()}, TypeError, "x has dtype float64"),
    ({"x": 0.5}, TypeError, "x is of type float"),
    ({"origin": X[:2]}, ValueError, r"origin has shape \[2, 2\], expected \[3, 2\]"),
    ({"origin": X.half()}, TypeError, "origin has dtype float16"),
    ({"origin": X.to("meta")}, ValueError, "origin is on meta but x is on cpu"),
    ({"gradient": X.T}, ValueError, r"gradient has shape \[2, 3\]"),
    ({"gradient": X.bfloat16()}, TypeError, "gradient has dtype bfloat16"),
    ({"gradient": None}, TypeError, "gradient is of type NoneType"),
    ({"gradient": X.to("meta")}, ValueError, "gradient is on meta"),
    ({"eps": -0.1}, ValueError, "eps is -0.1, expected a finite number of at least 0"),
    ({"eps": math.nan}, ValueError, "eps is nan"),
    ({"eps": math.inf}, ValueError, "eps is inf"),
    ({"eps": "8/255"}, TypeError, "eps is '8/255' of type str"),
    ({"eps": None}, TypeError, "eps is None"),
    ({"eps": torch.rand(2)}, ValueError, r"eps has shape \[2\], expected \[3\] to go with the samples of x"),
    ({"eps": torch.tensor(0.1)}, ValueError, r"eps has shape \[\], expected \[3\]"),
    ({"eps": torch.rand(3).double()}, TypeError, "eps has dtype float64"),
    ({"eps": torch.tensor([0.1, -0.25, 0.1])}, ValueError, "eps holds -0.25"),
    ({"eps": torch.tensor([0.1, math.nan, 0.1])}, ValueError, "eps holds nan"),
    ({"eps": torch.rand(3, device="meta")}, ValueError, "eps is on meta"),
    ({"alpha": -1.0}, ValueError, "alpha is -1.0"),
    ({"alpha": torch.full((3,), math.inf)}, ValueError, "alpha holds inf"),
    ({"alpha": torch.rand(2)}, ValueError, "alpha has shape"),
    ({"batch_axis": 2}, ValueError, "batch_axis is 2, expected an integer from 0 to 1"),
    (
        {"batch_axis": 1, "x": X[0], "origin": X[0], "gradient": X[0]},
        ValueError,
        r"x has shape \[2\], expected a batch on axis 1",
    ),
    ({"batch_axis": -1}, ValueError, "batch_axis is -1"),
    ({"batch_axis": 0.0}, TypeError, "batch_axis is 0.0"),
    ({"backend": "cuda "}, ValueError, "backend is 'cuda '"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), BAD_INPUT, ids=[", ".join(arguments) for arguments, *_ in BAD_INPUT]
)
def test_bad_input_is_refused_by_name(arguments, error, message):
    arguments = {"x": X, "origin": X, "gradient": X, "eps": 0.1, "alpha": 0.1, **arguments}
    with pytest.raises(error, match=message):
        functional.attack_step(**arguments)


def test_a_backend_that_cannot_run_here_is_refused_with_the_reason(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match=r"backend='triton' cannot run here: .*(CUDA tensors|not installed)"):
        functional.attack_step(X, X, X, 0.1, 0.1, backend="triton")
