import pytest
import torch

from fastsnn.nn.layers import channels_last
from fastsnn.ops import library
from fastsnn.ops.integrate_fire import Neuron, backward, backward_counted
from fastsnn.ops.tally import Addition, Counts, count

T, B = 3, 2


def sparse(*shape, size=1.0):
    return torch.randn(shape) * (torch.rand(shape) < 0.6) * size


def assert_same(found, gradient):
    """Zeros and Linf are the same, sums within 1e-6."""
    rows = gradient.reshape(T, B, -1).double()
    zeros, l1, squares, linf = found.sums.unbind(-1)
    assert found.numbers == rows.shape[-1] and torch.equal(zeros, (rows == 0).sum(-1).double())
    torch.testing.assert_close(l1, rows.abs().sum(-1), rtol=1e-6, atol=0)
    torch.testing.assert_close(squares, rows.square().sum(-1), rtol=1e-6, atol=0)
    assert torch.equal(linf, rows.abs().amax(-1))


@pytest.mark.parametrize("numbers", [1, 2, 15, 16, 17, 511, 512, 513, 1300])
def test_rows_of_any_length_are_counted(instruction_set, numbers):
    gradient = sparse(T, B, numbers)
    gradient[0, 0, -1] = -0.0
    assert_same(count(gradient, T, B), gradient)
    assert_same(count(gradient, T, B, exact=True), gradient)


@pytest.mark.parametrize("size", [1e-38, 1e-25, 1e-16, 1e14, 1e30, 1e37])
def test_no_sum_underflows_or_overflows(instruction_set, size):
    gradient = sparse(T, B, 600, size=size)
    assert_same(count(gradient, T, B), gradient)


def test_layouts_and_folded_steps_change_nothing():
    gradient = sparse(T, B, 4, 3, 5)
    assert_same(count(channels_last(gradient), T, B), gradient)
    assert_same(count(channels_last(gradient).flatten(0, 1), T, B), gradient)
    assert_same(count(gradient[:, :1].expand(T, B, 4, 3, 5), T, B), gradient[:, :1].expand(T, B, 4, 3, 5))
    assert count(gradient[..., :0], T, B).sums.abs().sum() == 0


def test_what_is_not_a_number_is_in_all_sums(instruction_set):
    gradient = torch.zeros(T, B, 40)
    gradient[0, 0, 3] = torch.nan
    found = count(gradient, T, B).sums
    assert found[0, 0, 1:].isnan().all() and found[0, 0, 0] == 39 and found[1:].isfinite().all()


CASES = [
    (Neuron(), True, (40, 4, 4)),
    (Neuron(), False, (7,)),
    (Neuron(tau=2.0), True, (3, 5, 5)),
    (Neuron(v_reset=None, tau=2.0, surrogate="triangle", detach_reset=False), False, (33, 2, 1)),
    (Neuron(surrogate="rectangle", alpha=4.0), True, (5, 1, 1)),
]


@pytest.mark.parametrize(("neuron", "affine", "shape"), CASES)
def test_neurons_count_what_they_write_and_write_what_they_would(instruction_set, neuron, affine, shape):
    x = torch.randn(T, B, *shape)
    x = channels_last(x) if len(shape) == 3 else x
    scale, shift = (torch.randn(shape[0]), torch.randn(shape[0])) if affine else (None, None)
    if affine:
        scale[0] = 0.0  # what is not 0 behind the affine is 0 in front of it
    grad = sparse(T, B, *shape)
    inputs = (grad, x, None, scale, shift, None, None, neuron)
    at_current, _, _ = backward(*inputs, through_affine=False)
    expected, _, _ = backward(*inputs)
    found, _, counts = backward_counted(grad, x, scale, shift, None, None, neuron)
    assert torch.equal(found, expected)
    for counted, gradient in zip(counts, (grad, at_current, expected), strict=True):
        assert_same(counted, gradient)


@pytest.mark.parametrize("junction", ["and", "iand", "and_not"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])  # by the kernel, and by passes
def test_neurons_behind_a_product_count_the_gradient_at_their_spikes(junction, dtype):
    x, residual = torch.randn(T, B, 5, 4, 4), (torch.rand(T, B, 5, 4, 4) < 0.5).float()
    scale, shift, grad = torch.rand(5) + 0.5, torch.randn(5), sparse(T, B, 5, 4, 4)
    x, residual, grad, neuron = x.to(dtype), residual.to(dtype), grad.to(dtype), Neuron()
    at_current, _, expected = backward(grad, x, None, scale, shift, residual, junction, neuron, through_affine=False)
    found, at_residual, counts = backward_counted(grad, x, scale, shift, residual, junction, neuron, False)
    assert torch.equal(found, at_current) and torch.equal(at_residual, expected)
    r, g = residual.float(), grad.float()
    at_spikes = {"and": g * r, "iand": -(g * r), "and_not": g * (1 - r)}[junction]
    for counted, gradient in zip(counts, (at_spikes, at_current, at_current), strict=True):
        assert_same(counted, gradient)


def test_no_number_of_threads_changes_a_sum():
    x, grad = torch.randn(4, 8, 6000), sparse(4, 8, 6000)
    found, threads = [], torch.get_num_threads()
    try:
        for many in (1, 3):
            torch.set_num_threads(many)
            counts = (*backward_counted(grad, x, None, None, None, None, Neuron())[2], count(grad, 4, 8))
            found.append(torch.stack([one.sums for one in counts]))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def counts(*sums):
    """Return sums as if they had been counted."""
    return [Counts(each[None], 0, 1) for each in sums]


def added_up(sums):
    """Return what one list of sums [steps, B, 4] comes to at every step and over all: [4, steps + 1]."""
    sums = torch.stack(sums)
    found = []
    for t in range(sums.shape[1] + 1):
        those = sums[:, t] if t < sums.shape[1] else sums.flatten(0, 1)  # [gradients of a sample, samples, 4]
        zeros, l1, squares, _ = those.sum(0).unbind(-1)
        linf = those[..., 3].amax(0) if those.numel() else zeros
        found.append(torch.stack([zeros.sum(), l1.sum(), squares.sqrt().sum(), linf.sum()]))
    return torch.stack(found, 1)


@pytest.mark.parametrize("by", ["kernel", "torch"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 4, 5), (70, 10, 16), (150, 2, 3), (2, 1, 7), (4, 3, 0)], ids=str)
def test_sums_of_samples_are_added_up_at_every_step_and_over_all(instruction_set, monkeypatch, by, sizes):
    if by == "torch":
        monkeypatch.setattr(library, "unavailable", lambda: "not here")
    places, steps, samples = sizes
    parts = [1 + place % 2 for place in range(places)]
    sums = [torch.rand(steps, samples, 4, dtype=torch.float64) for _ in range(sum(parts))]
    if samples > 1:
        sums[-1][0, 1, 1:] = torch.nan
    rows = [[2 * place, 2 * place + 1] if place % 3 == 0 else [2 * place] for place in range(places)]
    before = torch.rand(2 * places, 4, steps + 1, dtype=torch.float64)
    totals, add = before.clone(), Addition(list(zip(parts, rows, strict=True)), torch.device("cpu"))
    for _ in range(2):
        add(counts(*sums), totals)
    assert add.times.item() == 2
    left = iter(sums)
    for place in range(places):
        expected = 2 * added_up([next(left) for _ in range(parts[place])])
        for row in (2 * place, 2 * place + 1):
            more = expected if row in rows[place] else torch.zeros_like(expected)
            torch.testing.assert_close(totals[row], before[row] + more, rtol=1e-12, atol=0, equal_nan=True)


@pytest.mark.parametrize("by", ["kernel", "torch"])
def test_what_knows_no_time_is_added_to_the_last_alone(instruction_set, monkeypatch, by):
    if by == "torch":
        monkeypatch.setattr(library, "unavailable", lambda: "not here")
    sums, totals = torch.rand(1, 5, 4, dtype=torch.float64), torch.zeros(1, 4, 4, dtype=torch.float64)
    Addition([(1, [0])], torch.device("cpu"))(counts(sums), totals)
    assert not totals[..., :3].any()
    torch.testing.assert_close(totals[0, :, 3], added_up([sums])[:, 1], rtol=1e-12, atol=0)


def test_an_infinite_sum_stays_one(instruction_set):
    sums, totals = torch.rand(2, 3, 4, 4, dtype=torch.float64), torch.zeros(2, 4, 4, dtype=torch.float64)
    sums[1, 2, 3] = torch.inf
    Addition([(1, [0]), (1, [1])], torch.device("cpu"))(counts(*sums), totals)
    assert totals[1, :, 2:].isinf().all() and totals[1, :, :2].isfinite().all() and totals[0].isfinite().all()


def test_more_gradients_at_a_place_than_a_call_takes_are_added_too():
    sums, totals = list(torch.rand(130, 3, 2, 4, dtype=torch.float64)), torch.zeros(1, 4, 4, dtype=torch.float64)
    Addition([(130, [0])], torch.device("cpu"))(counts(*sums), totals)
    torch.testing.assert_close(totals[0], added_up(sums), rtol=1e-12, atol=0)
