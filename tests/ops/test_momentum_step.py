import pytest
import torch

from fastsnn.nn.layers import channels_last
from fastsnn.ops import layout, library
from fastsnn.ops.momentum_step import reference, step

SIZES = [((3, 2, 5, 4, 4), 1), ((5, 3, 7, 5), 0), ((2, 17), 0), ((4, 3, 3, 33, 33), 1), ((3, 0, 2, 4, 4), 1)]


def iterates(shape, axis, eps=0.1):
    """Return adv and before in the ball of eps, a gradient with zeros, the origin, budgets and step sizes."""
    origin = torch.rand(shape).round(decimals=1)  # so that some lie in the cube's corners
    B = shape[axis]
    budgets, sizes = torch.rand(B) * eps, torch.rand(B) * eps
    beside = budgets.view([-1 if i == axis else 1 for i in range(len(shape))])
    adv, before = ((origin + beside * (2 * torch.rand(shape) - 1)).clamp(0, 1) for _ in range(2))
    gradient = torch.randn(shape) * (torch.rand(shape) < 0.7)
    return adv, before, gradient, origin, budgets, sizes


@pytest.mark.parametrize("weight", [1.0, 0.75])
@pytest.mark.parametrize(("shape", "axis"), SIZES, ids=str)
def test_a_step_has_the_bits_of_the_specification(instruction_set, shape, axis, weight):
    inputs = iterates(shape, axis)
    assert torch.equal(step(*inputs, weight, axis), reference.forward(*inputs, weight, axis))


@pytest.mark.parametrize("weight", [1.0, 0.75])
def test_every_layout_gives_the_same_and_keeps_that_of_the_iterate(instruction_set, weight):
    adv, before, gradient, origin, eps, size = iterates((3, 2, 5, 4, 4), 1)
    expected = reference.forward(adv, before, gradient, origin, eps, size, weight, 1)
    for lay in (channels_last, lambda x: x.transpose(3, 4).contiguous().transpose(3, 4)):
        found = step(lay(adv), before, lay(gradient), origin, eps, size, weight, 1)
        assert torch.equal(found, expected)
    assert layout.is_channels_last(step(channels_last(adv), before, gradient, origin, eps, size, weight, 1))


def test_a_gradient_that_is_not_a_number_moves_nothing_and_an_infinite_one_as_any(instruction_set):
    adv, before, gradient, origin, eps, size = iterates((2, 40), 0)
    gradient[0, 3], gradient[1, 7], gradient[1, 8] = torch.nan, torch.inf, -torch.inf
    found = step(adv, before, gradient, origin, eps, size, 0.75, 0)
    assert torch.equal(found, reference.forward(adv, before, gradient, origin, eps, size, 0.75, 0))
    gradient[0, 3], gradient[1, 7], gradient[1, 8] = 0, 1, -1
    assert torch.equal(found, step(adv, before, gradient, origin, eps, size, 0.75, 0))


def test_no_budget_moves_nothing_and_a_large_one_reaches_the_cube_s_faces(instruction_set):
    _, _, gradient, origin, _, size = iterates((2, 40), 0)
    zero, all_of_it = torch.zeros(2), torch.ones(2)
    assert torch.equal(step(origin, origin, gradient, origin, zero, size, 1.0, 0), origin)
    found = step(origin, origin, gradient, origin, all_of_it, 2 * all_of_it, 1.0, 0)
    expected = torch.where(gradient > 0, 1.0, torch.where(gradient < 0, 0.0, origin))
    assert torch.equal(found, expected)


def test_the_kernel_runs_where_it_can(monkeypatch):
    ran, run = [], library.run
    monkeypatch.setattr(library, "run", lambda kernel, arguments: ran.append(kernel) or run(kernel, arguments))
    inputs = iterates((3, 2, 5, 4, 4), 1)
    step(*inputs, 0.75, 1)
    assert ran == ([] if library.unavailable() else ["momentum_step"])


def test_no_number_of_threads_changes_a_bit():
    inputs, threads, found = iterates((10, 7, 3, 32, 32), 1), torch.get_num_threads(), []
    try:
        for many in (1, 3):
            torch.set_num_threads(many)
            found.append(step(*inputs, 0.75, 1))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
