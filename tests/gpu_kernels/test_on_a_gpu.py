"""The GPU's kernels where they belong."""

import pytest
import torch

from fastsnn import functional
from fastsnn.ops import backends

from ..ops.cases import LAYOUTS, assert_same_bits, lay_out
from .comparisons import (
    DTYPES,
    NEURONS,
    OPTIONS,
    SHAPES,
    STEPS,
    attack_inputs,
    compare_attack_step,
    compare_integrate_fire,
    compare_phase_encode,
    currents,
    extreme_attack_inputs,
    extreme_currents,
    name,
    pictures,
)

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["triton", "cuda"])
def backend(request):
    reason = backends.unavailable(request.param, torch.device("cuda"))
    if reason:
        pytest.skip(f"backend {request.param!r} cannot run: {reason}")
    return request.param


@pytest.mark.parametrize("neuron", NEURONS, ids=name)
def test_every_neuron_equals_the_reference(backend, neuron):
    compare_integrate_fire(backend, "cuda", currents(10, 4, 8, 7, 7), **neuron)


@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_every_option_equals_the_reference(backend, options):
    compare_integrate_fire(backend, "cuda", currents(10, 4, 8, 4, 4), **options)


@pytest.mark.parametrize("shape", [*SHAPES, (16, 64, 16, 16)], ids=str)
@pytest.mark.parametrize("steps", STEPS)
def test_any_size_equals_the_reference(backend, steps, shape):
    compare_integrate_fire(
        backend, "cuda", currents(steps, *shape), affine=len(shape) > 1, junction="iand", v_init=True
    )


@pytest.mark.parametrize("other_layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_layout_and_dtype_equals_the_reference(backend, layout, other_layout, dtype):
    options = {"affine": True, "v_init": True, "junction": "and_not", "dtype": dtype, "parameter_dtype": dtype}
    x_seq = currents(10, 4, 8, 6, 5)
    compare_integrate_fire(backend, "cuda", x_seq, layout=layout, other_layout=other_layout, **options)


@pytest.mark.parametrize("surrogate", ["atan", "sigmoid", "triangle", "rectangle"])
@pytest.mark.parametrize("v_reset", [0.0, None])
@pytest.mark.parametrize("tau", [None, 2.0])
def test_extreme_currents_equal_the_reference(backend, surrogate, v_reset, tau):
    compare_integrate_fire(backend, "cuda", extreme_currents(), surrogate=surrogate, v_reset=v_reset, tau=tau)


@pytest.mark.parametrize("K", [1, 2, 7, 8, 9, 16])
@pytest.mark.parametrize("weighted", [False, True])
def test_phase_encode_equals_the_reference(backend, K, weighted):
    for images in pictures(16, 3, 33, 35):
        compare_phase_encode(backend, "cuda", images, 37, K, weighted)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch_axis", range(2))
def test_attack_step_equals_the_reference(backend, layout, batch_axis, exact):
    x, origin, gradient = attack_inputs(10, 6, 3, 17, 19)
    n = x.shape[batch_axis]
    eps, alpha = torch.linspace(0, 0.3, n), torch.linspace(0.2, 0.01, n)
    options = {"batch_axis": batch_axis, "exact": exact}
    compare_attack_step(backend, "cuda", lay_out(x, layout), origin, gradient, eps, alpha, **options)
    compare_attack_step(backend, "cuda", *extreme_attack_inputs(), 0.1, 0.03, exact=exact)


def test_more_than_2_to_the_31_elements_are_addressed(backend):
    T, neurons = 3, 2**30 + 16
    needed = 3 * T * neurons * 2
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory")
    x_seq = torch.full((T, neurons), 0.5, dtype=torch.bfloat16, device="cuda").requires_grad_()
    spikes = functional.multistep_if(x_seq, backend=backend)
    assert torch.equal(spikes.sum(1, dtype=torch.float64).cpu(), torch.tensor([0.0, neurons, 0.0]).double())
    (gradient,) = torch.autograd.grad(spikes, x_seq, spikes)
    assert torch.equal(gradient.amin(1), gradient.amax(1))


def test_forward_and_backward_can_be_captured_in_a_graph(backend):
    x_seq = currents(10, 4, 8, 4, 4).cuda().requires_grad_()
    scale, shift = torch.linspace(0.5, 2, 8).cuda(), torch.zeros(8).cuda()

    def step():
        out = functional.integrate_fire(x_seq, scale=scale, shift=shift, backend=backend)
        return out.detach(), *torch.autograd.grad(out, x_seq, torch.ones_like(out))

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        x_seq.copy_(currents(10, 4, 8, 4, 4, seed=9))
    graph.replay()
    for got, expected in zip(captured, step(), strict=True):
        assert_same_bits(got, expected)


def test_a_tensor_on_another_gpu_runs_there(backend):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    compare_integrate_fire(backend, "cuda:1", currents(10, 4, 8, 4, 4), affine=True)
    compare_phase_encode(backend, "cuda:1", pictures(3, 5, 5)[0], 10, 8, True)
    compare_attack_step(backend, "cuda:1", *attack_inputs(3, 5, 5), 0.1, 0.1)
