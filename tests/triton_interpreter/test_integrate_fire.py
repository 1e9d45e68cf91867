import pytest
import torch

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
def test_every_neuron_equals_the_reference(neuron):
    compare_integrate_fire("cpu", currents(5, 2, 3, 4), **neuron)


@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_every_option_equals_the_reference(options):
    compare_integrate_fire("cpu", currents(5, 2, 3, 2, 2), **options)


@pytest.mark.parametrize("junction", ["and", "iand"])
@pytest.mark.parametrize("surrogate", ["atan", "sigmoid"])
def test_all_options_together_equal_the_reference(junction, surrogate):
    options = {"affine": True, "v_init": True, "tau": 3.0, "detach_reset": False, "v_reset": None}
    compare_integrate_fire("cpu", currents(19, 2, 3, 5), junction=junction, surrogate=surrogate, **options)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("steps", [1, 9, 18])
def test_any_size_equals_the_reference(steps, shape):
    compare_integrate_fire("cpu", currents(steps, *shape), affine=len(shape) > 1, junction="iand", v_init=True)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("detach_reset", [True, False])
def test_any_number_of_steps_equals_the_reference(steps, detach_reset):
    compare_integrate_fire("cpu", currents(steps, 3, 7), v_init=True, detach_reset=detach_reset)


@pytest.mark.parametrize("other_layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_equals_the_reference(layout, other_layout):
    options = {"affine": True, "v_init": True, "junction": "and_not"}
    compare_integrate_fire("cpu", currents(4, 2, 6, 3, 5), layout=layout, other_layout=other_layout, **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("parameter_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("junction", ["add", "and"])
def test_any_dtype_equals_the_reference(dtype, parameter_dtype, junction):
    options = {"affine": True, "v_init": True, "dtype": dtype, "parameter_dtype": parameter_dtype}
    compare_integrate_fire("cpu", currents(4, 2, 6, 3), junction=junction, **options)


@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # numpy, about infinities
@pytest.mark.parametrize("surrogate", ["atan", "sigmoid", "triangle", "rectangle"])
@pytest.mark.parametrize("v_reset", [0.0, None])
@pytest.mark.parametrize("tau", [None, 2.0])
def test_extreme_currents_equal_the_reference(surrogate, v_reset, tau):
    compare_integrate_fire("cpu", extreme_currents(), surrogate=surrogate, v_reset=v_reset, tau=tau)


@pytest.mark.parametrize("shape", [(3, 0), (3, 0, 4, 2, 2), (3, 2, 4, 0, 2)], ids=str)
def test_empty_batches_pass(shape):
    compare_integrate_fire("cpu", torch.empty(shape), v_init=True, affine=len(shape) > 2, junction="and")
