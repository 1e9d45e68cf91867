import math

import pytest
import torch

from fastsnn.ops.integrate_fire import cuda
from fastsnn.ops.integrate_fire.neuron import Neuron

from ..ops.cases import LAYOUTS
from .comparisons import (
    DTYPES,
    NEURONS,
    OPTIONS,
    SHAPES,
    STEPS,
    compare_integrate_fire,
    currents,
    extreme_currents,
    name,
)


@pytest.mark.parametrize("neuron", NEURONS, ids=name)
def test_every_neuron_equals_the_reference(backend, neuron):
    compare_integrate_fire(backend, "cpu", currents(5, 2, 3, 4), **neuron)


@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_every_option_equals_the_reference(backend, options):
    compare_integrate_fire(backend, "cpu", currents(5, 2, 3, 2, 2), **options)


@pytest.mark.parametrize("junction", ["and", "iand"])
@pytest.mark.parametrize("surrogate", ["atan", "sigmoid"])
def test_all_options_together_equal_the_reference(backend, junction, surrogate):
    options = {"affine": True, "v_init": True, "tau": 3.0, "detach_reset": False, "v_reset": None}
    compare_integrate_fire(backend, "cpu", currents(19, 2, 3, 5), junction=junction, surrogate=surrogate, **options)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("steps", [1, 9, 18])
def test_any_size_equals_the_reference(backend, steps, shape):
    compare_integrate_fire(backend, "cpu", currents(steps, *shape), affine=len(shape) > 1, junction="iand", v_init=True)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("detach_reset", [True, False])
def test_any_number_of_steps_equals_the_reference(backend, steps, detach_reset):
    compare_integrate_fire(backend, "cpu", currents(steps, 3, 7), v_init=True, detach_reset=detach_reset)


@pytest.mark.parametrize("other_layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_equals_the_reference(backend, layout, other_layout):
    options = {"affine": True, "v_init": True, "junction": "and_not"}
    compare_integrate_fire(backend, "cpu", currents(4, 2, 6, 3, 5), layout=layout, other_layout=other_layout, **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("parameter_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("junction", ["add", "and"])
def test_any_dtype_equals_the_reference(backend, dtype, parameter_dtype, junction):
    options = {"affine": True, "v_init": True, "dtype": dtype, "parameter_dtype": parameter_dtype}
    compare_integrate_fire(backend, "cpu", currents(4, 2, 6, 3), junction=junction, **options)


@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # numpy, about infinities
@pytest.mark.parametrize("surrogate", ["atan", "sigmoid", "triangle", "rectangle"])
@pytest.mark.parametrize("v_reset", [0.0, None])
@pytest.mark.parametrize("tau", [None, 2.0])
def test_extreme_currents_equal_the_reference(backend, surrogate, v_reset, tau):
    compare_integrate_fire(backend, "cpu", extreme_currents(), surrogate=surrogate, v_reset=v_reset, tau=tau)


@pytest.mark.parametrize("shape", [(3, 0), (3, 0, 4, 2, 2), (3, 2, 4, 0, 2)], ids=str)
def test_empty_batches_pass(backend, shape):
    compare_integrate_fire(backend, "cpu", torch.empty(shape), v_init=True, affine=len(shape) > 2, junction="and")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (3, 3, 7, 7)], ids=str)
@pytest.mark.parametrize("steps", [4, 13])
def test_the_backward_pass_counts_what_it_writes(backend, steps, shape, dtype):
    if backend != "cuda":
        pytest.skip("only the CUDA C++ kernels count")
    x_seq, grad_out = (currents(steps, *shape, seed=seed).to(dtype) for seed in (0, 1))
    grad_out[:, :, 1:] = 0.0
    tally, twice = cuda.empty_tally(x_seq), cuda.empty_tally(x_seq)
    inputs = (grad_out, x_seq, None, None, None, None, None, Neuron(), True)
    grad_x, _, _ = cuda.backward(*inputs, tally=tally)
    cuda.backward(*inputs, tally=twice)

    assert torch.equal(tally, twice)
    g = grad_x.double().abs()
    assert 0 < tally[:, 0].sum() == g.count_nonzero() < g.numel() / 2
    assert tally[:, 1].sum().item() == pytest.approx(g.sum().item(), rel=1e-6)
    assert tally[:, 2].sum().item() == pytest.approx(g.square().sum().item(), rel=1e-6)
    assert tally[:, 3].max() == g.max()


def test_a_gradient_of_nan_is_seen_in_the_tally(backend):
    if backend != "cuda":
        pytest.skip("only the CUDA C++ kernels count")
    x_seq = currents(4, 300)
    grad_out = torch.ones_like(x_seq)
    grad_out[2, 17] = math.nan
    tally = cuda.empty_tally(x_seq)
    cuda.backward(grad_out, x_seq, None, None, None, None, None, Neuron(), True, tally=tally)
    assert tally[:, 1:].isnan().any(0).all()
