import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastsnn.nn import over_time, pooled, precision
from fastsnn.ops import library
from fastsnn.ops.pool import Window, fits, pool

from .cases import assert_same_bits

if library.unavailable():
    pytest.skip(library.unavailable(), allow_module_level=True)
SIZES = [(1, 1, 1, 3, 3), (2, 3, 16, 16, 16), (3, 2, 7, 5, 8), (1, 2, 33, 6, 4), (2, 1, 64, 8, 9)]
WINDOWS = [(3, 2, 1), (2, 2, 0), (3, 1, 1), (1, 1, 0), (3, 3, 0), (2, 3, 1), (5, 2, 2)]


@pytest.fixture(params=library.instruction_sets())
def instruction_set(request):
    library.use_instruction_set(request.param)
    yield
    library.use_instruction_set(library.instruction_sets()[0])


def frames(*shape, values=None):
    """Channels-last [T, B, C, H, W], by default spikes and small sums of them: full of equal maxima."""
    T, B, C, H, W = shape
    x = (
        torch.randint(0, 3, (T, B, H, W, C)).float()
        if values is None
        else values[torch.randint(len(values), (T, B, H, W, C))]
    )
    return x.permute(0, 1, 4, 2, 3)


def of_torch(x_seq, window):
    x = x_seq.flatten(0, 1)
    out = F.max_pool2d(x, *window[1:]) if window.is_max else F.avg_pool2d(x, *window[1:])
    return out.unflatten(0, x_seq.shape[:2])


def both_ways(function, x_seq, window, grad):
    leaf = x_seq.detach().requires_grad_()
    out = function(leaf, window)
    return out.detach(), *torch.autograd.grad(out, leaf, grad)


@pytest.mark.parametrize("is_max", [True, False], ids=["max", "avg"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_output_and_gradient_are_torchs_bit_for_bit(instruction_set, size, window, is_max):
    window, x_seq = Window(is_max, *window), frames(*size)
    if x_seq.is_contiguous() or min(size[3:]) + 2 * window.padding < window.kernel:
        assert not fits(x_seq, window)
        return
    assert fits(x_seq, window)
    grad = torch.randn_like(of_torch(x_seq, window))
    for layout in (grad, grad.contiguous(), grad.expand_as(grad)[..., :1].expand_as(grad)):
        for ours, theirs in zip(
            both_ways(pool, x_seq, window, layout), both_ways(of_torch, x_seq, window, layout), strict=True
        ):
            assert_same_bits(ours, theirs)


@pytest.mark.parametrize("is_max", [True, False], ids=["max", "avg"])
def test_infinities_nan_and_minus_zero_go_through_as_in_torch(instruction_set, is_max):
    values = torch.tensor([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-45])
    for seed in range(20):
        torch.manual_seed(seed)
        x_seq, window = frames(2, 3, 18, 6, 7, values=values), Window(is_max, 3, 2, 1)
        grad = torch.randn_like(of_torch(x_seq, window))
        for ours, theirs in zip(
            both_ways(pool, x_seq, window, grad), both_ways(of_torch, x_seq, window, grad), strict=True
        ):
            assert_same_bits(ours, theirs)


def test_the_number_of_threads_changes_nothing():
    x_seq, window, threads, found = frames(10, 8, 64, 16, 16), Window(True, 3, 2, 1), torch.get_num_threads(), []
    grad = torch.randn_like(of_torch(x_seq, window))
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(both_ways(pool, x_seq, window, grad))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize("is_max", [True, False], ids=["max", "avg"])
def test_a_max_pool_keeps_a_byte_for_each_output_and_an_average_nothing(is_max):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        out = pool(frames(2, 3, 16, 8, 8).requires_grad_(), Window(is_max, 3, 2, 1))
    assert sum(tensor.numel() * tensor.element_size() for tensor in kept) == is_max * out.numel()


def test_a_second_derivative_is_refused():
    x_seq = frames(1, 2, 16, 4, 4).requires_grad_()
    (grad,) = torch.autograd.grad((pool(x_seq, Window(False, 3, 2, 1)) ** 2).sum(), x_seq, create_graph=True)
    with pytest.raises(RuntimeError, match="a pool is differentiable once"):
        torch.autograd.grad(grad.sum(), x_seq)


@pytest.mark.parametrize(
    "module",
    [
        nn.MaxPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(2),
        nn.MaxPool2d(3, 2, 1, dilation=2),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1, divisor_override=2),
        nn.MaxPool2d((3, 2), (2, 1)),
        nn.AdaptiveAvgPool2d(2),
    ],
    ids=str,
)
def test_every_pool_of_torch_gives_what_it_gives(module):
    for x_seq in (frames(3, 2, 16, 8, 8), frames(3, 2, 16, 8, 8).contiguous(), frames(3, 2, 16, 8, 8).double()):
        assert_same_bits(pooled(module, x_seq), over_time(module, x_seq))


def test_the_kernel_runs_where_nobody_watches_and_not_under_reference(monkeypatch):
    calls, run = [], library.run
    monkeypatch.setattr(library, "run", lambda kernel, arguments: calls.append(kernel) or run(kernel, arguments))
    module, x_seq = nn.MaxPool2d(3, 2, 1), frames(3, 2, 16, 8, 8)
    pooled(module, x_seq)
    assert calls == ["pool_forward"]
    with precision("reference"):
        pooled(module, x_seq)
    module.register_forward_hook(lambda *_: None)
    pooled(module, x_seq)
    assert calls == ["pool_forward"]
