"""What the GPU's kernels are compared on with the reference: the same cases on a CPU and on a GPU."""

import itertools
import math

import torch

from fastsnn import functional

from ..ops.cases import assert_close, assert_same_bits, largest, lay_out

NEURONS = [
    {**charge, "v_reset": v_reset, "detach_reset": detach_reset, "surrogate": surrogate, "alpha": alpha}
    for charge, v_reset, detach_reset, (surrogate, alpha) in itertools.product(
        ({"tau": None}, {"tau": 2.3}, {"tau": 2.3, "decay_input": False}),
        (0.0, -0.3, None),
        (True, False),
        (("atan", 2.0), ("sigmoid", 4.1), ("triangle", 0.7), ("rectangle", 1.3)),
    )
]
OPTIONS = [
    {"junction": junction, "affine": affine, "learns_affine": learns_affine, "v_init": v_init}
    for junction, (affine, learns_affine), v_init in itertools.product(
        (None, "add", "and", "iand", "and_not"), ((False, False), (True, False), (True, True)), (False, True)
    )
]
SHAPES = [(1, 1), (37,), (2, 3, 4, 4), (2, 3, 7, 5), (3, 32, 2, 8), (2, 5, 123), (1, 600, 1, 1)]
STEPS = [1, 2, 7, 10, 15, 16, 17, 24, 33, 70]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def name(options):
    """An id for pytest."""
    return "-".join(map(str, options.values()))


def currents(*shape, seed=0):
    """Half of them are multiples of 1/4, which bring h exactly to a threshold of 1."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.randint(-3, 6, shape, generator=generator) / 4
    return torch.where(torch.rand(shape, generator=generator) < 0.5, grid, torch.randn(shape, generator=generator))


def extreme_currents():
    """Infinities, NaN, denormals, -0, and what brings h exactly to, just above and just below 1, in all orders."""
    strange = [math.inf, -math.inf, math.nan, 3e38, -3e38, 1e-45, -1e-45, 1e-38, 0.0, -0.0]
    near_threshold = [0.5, 1.0, 1 - 2**-24, 1 + 2**-23]
    return torch.tensor(list(itertools.product(strange + near_threshold, repeat=3))).T.contiguous()


def compare_integrate_fire(
    backend,
    device,
    x_seq,
    *,
    junction=None,
    affine=False,
    learns_affine=False,
    v_init=False,
    layout="contiguous",
    other_layout="contiguous",
    dtype=torch.float32,
    parameter_dtype=torch.float32,
    **neuron,
):
    """Assert that the output and all gradients equal the reference's."""
    shape, C = x_seq.shape, x_seq.shape[2] if affine else 1
    tensors = {"x_seq": lay_out(x_seq.to(device, dtype), layout)}
    if junction:
        tensors["residual"] = lay_out(currents(*shape, seed=1).to(device, dtype), other_layout)
    if affine:
        tensors["scale"] = torch.linspace(0.5, 1.9, C).to(device, parameter_dtype)
        tensors["shift"] = torch.linspace(-0.4, 0.6, C).to(device, parameter_dtype)
    if v_init:
        tensors["v_init"] = lay_out(currents(*shape[1:], seed=2).to(device, parameter_dtype), other_layout)
    leaves = [key for key in tensors if learns_affine or key not in ("scale", "shift")]
    for key in leaves:
        tensors[key].requires_grad_()
    grad_out = lay_out(currents(*shape, seed=3).to(device, dtype), other_layout)

    results = []
    for one in ("reference", backend):
        out = functional.integrate_fire(**tensors, **neuron, junction=junction, backend=one)
        gradients = torch.autograd.grad(out, [tensors[key] for key in leaves], grad_out)
        results.append({"out": out.detach(), **dict(zip(leaves, gradients, strict=True))})
    expected, got = results
    for key in expected:
        tolerance = 1e-6 if neuron.get("surrogate") == "sigmoid" and key != "out" else 0
        if torch.bfloat16 in (dtype, parameter_dtype) and (backend, device) == ("triton", "cpu"):
            tolerance = 2**-7  # the interpreter truncates where a GPU rounds
        elif tolerance and dtype != torch.float32:
            tolerance = torch.finfo(dtype).eps  # a difference of 1e-6 may round to the next number
        if tolerance:
            assert_close(got[key], expected[key], tolerance * largest(expected[key]), key)
        else:
            assert_same_bits(got[key], expected[key], key)


def pictures(*shape):
    """Bytes, and floats at every level, half between levels, and next to those."""
    levels = torch.arange(math.prod(shape)).view(shape)
    floats = (levels % 511) / 510
    nudged = torch.nextafter(floats, torch.where(levels % 3 == 0, 1.0, 0.0))
    return (levels % 256).to(torch.uint8), floats, nudged, floats.half(), floats.bfloat16()


def compare_phase_encode(backend, device, images, T, K, weighted):
    """Assert that the spikes equal the reference's."""
    images = images.to(device)
    expected = functional.phase_encode(images, T, K, weighted=weighted, backend="reference")
    assert_same_bits(functional.phase_encode(images, T, K, weighted=weighted, backend=backend), expected)


def attack_inputs(*shape):
    """An iterate, an origin with pixels at 0 and 1, and a gradient with zeros."""
    generator = torch.Generator().manual_seed(0)
    x, origin = torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)
    gradient = torch.randn(shape, generator=generator)
    every = torch.arange(x.numel()).view(shape)
    return x, torch.where(every % 5 == 0, origin.round(), origin), torch.where(every % 7 == 0, 0.0, gradient)


def extreme_attack_inputs():
    """Infinities, NaN, denormals and -0 in x and in the gradient, at origins in [0, 1]."""
    values = torch.tensor([0.0, 1.0, 0.5, 1e-45, -0.0, math.nan, math.inf, -math.inf])
    x, origin, gradient = torch.meshgrid(values, values[:4], values, indexing="ij")
    return x.flatten(), origin.flatten(), gradient.flatten()


def compare_attack_step(backend, device, x, origin, gradient, eps, alpha, **options):
    """Assert that the next iterate equals the reference's."""
    x, origin, gradient = x.to(device), origin.to(device), gradient.to(device)
    eps, alpha = (value.to(device) if isinstance(value, torch.Tensor) else value for value in (eps, alpha))
    expected = functional.attack_step(x, origin, gradient, eps, alpha, backend="reference", **options)
    got = functional.attack_step(x, origin, gradient, eps, alpha, backend=backend, **options)
    assert_same_bits(got, expected)
