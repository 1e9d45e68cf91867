import pytest
import torch

from ..ops.cases import LAYOUTS, lay_out
from .comparisons import attack_inputs, compare_attack_step, extreme_attack_inputs


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("eps", [0.0, 6 / 255, 0.3, 2.0])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 7, 7), (3, 2, 3, 5, 5), (2, 1200), (1, 1, 1)], ids=str)
def test_every_budget_and_size_equals_the_reference(backend, shape, eps, exact):
    compare_attack_step(backend, "cpu", *attack_inputs(*shape), eps, 0.01, exact=exact)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch_axis", range(2))
def test_any_layout_and_batch_axis_equals_the_reference(backend, layout, batch_axis):
    x, origin, gradient = attack_inputs(2, 3, 2, 3, 4)
    n = x.shape[batch_axis]
    eps, alpha = torch.linspace(0, 0.3, n), torch.linspace(0.2, 0.01, n)
    compare_attack_step(backend, "cpu", lay_out(x, layout), origin, gradient, eps, alpha, batch_axis=batch_axis)


@pytest.mark.parametrize("eps", [0.0, 1e-45, 0.1])
def test_extreme_values_equal_the_reference(backend, eps):
    compare_attack_step(backend, "cpu", *extreme_attack_inputs(), torch.full((256,), eps), 0.03)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 3, 4, 4), (2, 0)], ids=str)
def test_empty_batches_pass(backend, shape):
    compare_attack_step(backend, "cpu", *attack_inputs(*shape), 0.1, 0.1)
