import itertools
import math

import numpy
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastsnn import functional
from fastsnn.ops import library
from fastsnn.ops.integrate_fire import JUNCTIONS, SURROGATES, Neuron

from . import cases
from .cases import Case

MANY_BLOCKS = (10, 2, 13, 7, 41)  # 7462 neurons: more than one block, more than one thread, no multiple of 16


def gradient(x_seq, grad_out=None, **how):
    x_seq = torch.as_tensor(x_seq).requires_grad_()
    spikes = functional.integrate_fire(x_seq, **how)
    return torch.autograd.grad(spikes, x_seq, torch.ones_like(spikes) if grad_out is None else grad_out)[0]


# First principles: cases done by hand, and a neuron in Python numbers


@pytest.mark.parametrize("backend", ["reference", "cpu"])
class TestByHand:
    def test_a_constant_current_of_04_fires_at_the_third_step(self, backend):
        x_seq = torch.full((6, 1), 0.4)
        assert functional.multistep_if(x_seq, backend=backend).flatten().tolist() == [0, 0, 1, 0, 0, 1]

    def test_a_voltage_exactly_at_the_threshold_fires(self, backend):
        below = numpy.nextafter(numpy.float32(1), numpy.float32(0)).item()
        x_seq = torch.tensor([[1.0, below, 0.5], [0.0, 0.0, 0.5]])
        assert functional.multistep_if(x_seq, backend=backend).tolist() == [[1, 0, 0], [0, 0, 1]]

    def test_hard_reset_forgets_the_excess_and_soft_reset_keeps_it(self, backend):
        x_seq = torch.tensor([[1.75], [0.25], [0.75]])
        assert functional.multistep_if(x_seq, v_reset=0.0, backend=backend).flatten().tolist() == [1, 0, 1]
        assert functional.multistep_if(x_seq, v_reset=None, backend=backend).flatten().tolist() == [1, 1, 0]
        assert functional.multistep_if(x_seq, v_reset=-0.5, backend=backend).flatten().tolist() == [1, 0, 0]

    def test_a_neuron_starts_at_its_reset_voltage_or_at_v_init(self, backend):
        x_seq = torch.tensor([[0.75]])
        assert functional.multistep_if(x_seq, v_reset=0.25, backend=backend).item() == 1
        assert functional.multistep_if(x_seq, v_reset=0.0, backend=backend).item() == 0
        assert functional.multistep_if(x_seq, v_init=torch.tensor([0.25]), backend=backend).item() == 1

    def test_a_leaky_neuron_halves_its_voltage_with_tau_2(self, backend):
        x_seq = torch.tensor([[0.5], [0.75], [0.0]])  # h = 0.5, 0.25 + 0.75, 0
        spikes = functional.multistep_lif(x_seq, tau=2.0, decay_input=False, backend=backend)
        assert spikes.flatten().tolist() == [0, 1, 0]
        spikes = functional.multistep_lif(2 * x_seq, tau=2.0, decay_input=True, backend=backend)
        assert spikes.flatten().tolist() == [0, 1, 0]

    def test_an_infinite_voltage_fires_and_resets(self, backend):
        x_seq = torch.tensor([[math.inf, -math.inf, math.nan], [0.5, 2.0, 2.0], [0.5, math.inf, 2.0]])
        spikes = functional.multistep_if(x_seq, backend=backend)
        assert spikes.tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]  # -inf + inf is NaN, and NaN never fires

    @pytest.mark.parametrize(
        ("junction", "expected"),
        [
            ("add", [[0, 1], [2, 3]]),
            ("and", [[0, 0], [1, 2]]),
            ("iand", [[0, 1], [0, 0]]),
            ("and_not", [[0, 0], [0, -1]]),
        ],
    )
    def test_a_junction_combines_spikes_with_the_residual(self, backend, junction, expected):
        x_seq, residual = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 2.0]])
        out = functional.integrate_fire(x_seq, residual=residual, junction=junction, backend=backend)
        assert out.tolist() == expected

    @pytest.mark.parametrize(
        ("surrogate", "alpha", "u", "expected"),
        [
            ("atan", 2.0, 0.0, 1.0),
            ("atan", 2.0, 1 / math.pi, 0.5),
            ("atan", 4.0, 0.0, 2.0),
            ("sigmoid", 4.0, 0.0, 1.0),
            ("sigmoid", 4.0, math.log(3) / 4, 0.75),
            ("triangle", 1.0, -0.5, 0.5),
            ("triangle", 2.0, 0.25, 1.0),
            ("triangle", 2.0, 0.5, 0.0),
            ("rectangle", 1.0, 0.25, 1.0),
            ("rectangle", 1.0, 0.5, 0.0),
            ("rectangle", 2.0, -0.125, 2.0),
        ],
    )
    def test_one_step_has_the_gradient_of_its_surrogate(self, backend, surrogate, alpha, u, expected):
        got = gradient([[1 + u]], surrogate=surrogate, alpha=alpha, backend=backend).item()
        assert got == pytest.approx(expected, rel=1e-6, abs=1e-12)

    @pytest.mark.parametrize("surrogate", SURROGATES)
    def test_a_surrogate_integrates_to_one_spike(self, backend, surrogate):
        u = (torch.arange(-1_000_000, 1_000_000) + 0.5)[None] / 1000
        area = gradient(u, surrogate=surrogate, alpha=2.0, v_threshold=0.0, backend=backend).double().sum() * 1e-3
        assert area.item() == pytest.approx(1, abs=2e-3)

    def test_gradients_reach_back_through_quiet_steps_and_stop_at_a_spike(self, backend):
        def sg(u):
            return 1 / (1 + (math.pi * u) ** 2)

        got = gradient([[0.4], [0.4], [0.4], [0.2]], backend=backend).flatten().tolist()  # h = 0.4, 0.8, 1.2, 0.2
        last = sg(0.2)
        assert got == pytest.approx([sg(0.6) + sg(0.2) + last, sg(0.2) + last, last, sg(0.8)], rel=1e-5)

    def test_a_reset_that_is_not_detached_carries_the_gradient_of_the_spike(self, backend):
        def sg(u):
            return 1 / (1 + (math.pi * u) ** 2)

        x_seq, later = [[1.2], [0.2]], torch.tensor([[0.0], [1.0]])
        hard = gradient(x_seq, later, detach_reset=False, v_reset=0.5, backend=backend)[0].item()  # h[1] = 0.7
        soft = gradient(x_seq, later, detach_reset=False, v_reset=None, backend=backend)[0].item()  # h[1] = 0.4
        assert hard == pytest.approx(sg(0.3) * (0.5 - 1.7) * sg(0.7), rel=1e-5)
        assert soft == pytest.approx(sg(0.6) * (1 - sg(0.2)), rel=1e-5)


def python_neuron(x_seq, neuron: Neuron):
    """Spikes of one neuron in a loop of float32 scalars."""
    f = numpy.float32
    v, spikes = f(neuron.v_reset or 0), []
    rest = v
    for x in x_seq:
        if neuron.tau is None:
            h = v + x
        elif neuron.decay_input:
            h = v + (x - (v - rest)) / f(neuron.tau)
        else:
            h = v - (v - rest) / f(neuron.tau) + x
        spikes.append(float(h >= f(neuron.v_threshold)))
        if neuron.v_reset is None:
            v = h - f(neuron.v_threshold) if spikes[-1] else h
        else:
            v = f(neuron.v_reset) if spikes[-1] else h
    return spikes


@given(cases.NEURONS, st.sampled_from(["grid", "normal"]), st.integers(0, 1000))
def test_the_reference_fires_when_a_loop_over_numbers_does(neuron, kind, seed):
    x_seq = cases.values((20, 5), kind, torch.Generator().manual_seed(seed))
    spikes = functional.integrate_fire(x_seq, **neuron._asdict(), backend="reference")
    for i in range(5):
        assert spikes[:, i].tolist() == python_neuron(x_seq[:, i].numpy(), neuron)


# The reference against a second derivation: plain autograd


@settings(max_examples=100)
@given(cases.integrate_fire_cases(kinds=("grid", "normal")))
def test_the_reference_is_the_plain_autograd_model_of_the_neuron(case):
    got, expected = cases.run(case, "reference"), cases.run_plain(case, torch.float32)
    cases.assert_same_bits(got.pop("out"), expected.pop("out"), f"out of {case}")
    assert got.keys() == expected.keys()
    for name in got:
        assume(expected[name].abs().max() < 1e30)  # a reset that is not detached can make gradients explode
        terms = math.prod(case.shape) / case.shape[2] if name in ("grad_scale", "grad_shift") else 1
        tolerance = 2e-5 * max(cases.largest(expected[name]), cases.largest(expected["grad_x_seq"])) * math.sqrt(terms)
        cases.assert_close(got[name], expected[name], tolerance, f"{name} of {case}")


# The reference against SpikingJelly 2.0

DECAYS = {"if": {}, "lif": {"tau": 2.0}, "lif, input kept": {"tau": 1.3, "decay_input": False}}


def spikingjelly_node(neuron: Neuron):
    from spikingjelly.activation_based import neuron as nodes
    from spikingjelly.activation_based import surrogate

    shapes = {"atan": "ATan", "sigmoid": "Sigmoid", "triangle": "PiecewiseQuadratic", "rectangle": "Rect"}
    how = {
        "v_threshold": neuron.v_threshold,
        "v_reset": neuron.v_reset,
        "surrogate_function": getattr(surrogate, shapes[neuron.surrogate])(alpha=neuron.alpha),
        "detach_reset": neuron.detach_reset,
        "step_mode": "m",
    }
    if neuron.tau is None:
        return nodes.IFNode(**how)
    return nodes.LIFNode(tau=neuron.tau, decay_input=neuron.decay_input, **how)


@pytest.mark.parametrize("kind", ["grid", "normal"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("detach_reset", [True, False], ids=["detached", "not detached"])
@pytest.mark.parametrize("v_reset", [0.0, -0.25, None], ids=["reset to 0", "reset to -0.25", "soft reset"])
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize(
    ("surrogate", "alpha"), [("atan", 2.0), ("sigmoid", 4.0), ("triangle", 1.0), ("rectangle", 0.5)]
)
def test_spikes_and_gradients_are_those_of_spikingjelly(surrogate, alpha, decay, v_reset, detach_reset, training, kind):
    neuron = Neuron(v_reset=v_reset, surrogate=surrogate, alpha=alpha, detach_reset=detach_reset, **DECAYS[decay])
    case = Case((10, 3, 4, 5), neuron, kind=kind)
    node = spikingjelly_node(neuron).train(training)
    got, expected = cases.run(case, "reference"), cases.outputs_of(lambda x_seq: node(x_seq), cases.inputs_of(case))
    assert 0 < got["out"].mean() < 1
    cases.assert_same_bits(got["out"], expected["out"], "spikes")
    cases.assert_same_bits(got["grad_x_seq"], expected["grad_x_seq"], "gradient", signed_zeros=False)


@given(cases.NEURONS, cases.shapes(), st.sampled_from(["grid", "normal"]), st.integers(0, 1000))
def test_any_neuron_at_any_size_is_that_of_spikingjelly(neuron, shape, kind, seed):
    assume(neuron.tau is None or neuron.tau > 1)
    case, node = Case(shape, neuron, kind=kind, seed=seed), spikingjelly_node(neuron)
    got, expected = cases.run(case, "reference"), cases.outputs_of(lambda x_seq: node(x_seq), cases.inputs_of(case))
    cases.assert_same_bits(got["out"], expected["out"], f"spikes of {case}")
    tolerance = 1e-6 * cases.largest(expected["grad_x_seq"])
    cases.assert_close(got["grad_x_seq"], expected["grad_x_seq"], tolerance, f"gradient of {case}")


def test_no_state_is_kept_between_calls_as_if_spikingjelly_had_been_reset():
    x_seq = torch.rand(4, 30)
    first = functional.multistep_if(x_seq)
    functional.multistep_if(torch.full((4, 30), 0.7))
    cases.assert_same_bits(functional.multistep_if(x_seq), first)


def test_one_difference_to_spikingjelly_is_meant_an_infinite_voltage_resets():
    x_seq = torch.tensor([[math.inf], [2.0]])
    assert spikingjelly_node(Neuron())(x_seq).tolist() == [[1], [0]]  # inf * 0 is NaN
    assert functional.multistep_if(x_seq, backend="reference").tolist() == [[1], [1]]


# The C++ kernels against the reference


@settings(max_examples=400)
@given(cases.integrate_fire_cases(dtypes=(torch.float32, torch.float32, *cases.LOW_PRECISION)))
def test_the_cpu_kernels_give_the_bits_of_the_reference(case):
    cases.assert_backends_agree(case, "cpu")


@pytest.mark.parametrize("detach_reset", [True, False], ids=["detached", "not detached"])
@pytest.mark.parametrize("v_reset", [0.0, None], ids=["hard", "soft"])
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_every_kind_of_neuron_has_its_own_cpu_kernel(surrogate, decay, v_reset, detach_reset):
    neuron = Neuron(v_reset=v_reset, surrogate=surrogate, detach_reset=detach_reset, **DECAYS[decay])
    for kind, junction in zip(("grid", "normal"), (None, "and_not"), strict=True):
        case = Case((7, 3, 5, 37), neuron, kind=kind, v_init=True, affine=True, junction=junction)
        cases.assert_backends_agree(case, "cpu")


@pytest.mark.parametrize("other_layout", cases.LAYOUTS)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("learns_affine", [True, False], ids=["learned affine", "fixed affine"])
def test_tensors_may_each_have_their_own_layout(layout, other_layout, learns_affine):
    everything = {"v_init": True, "affine": True, "learns_affine": learns_affine, "junction": "and"}
    layouts = {"layout": layout, "other_layout": other_layout}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        cases.assert_backends_agree(Case((3, 2, 5, 3, 4), Neuron(), dtype, "normal", **layouts, **everything), "cpu")


@settings(max_examples=100)
@given(cases.integrate_fire_cases(dtypes=(torch.float32, torch.bfloat16)))
def test_instruction_sets_and_threads_do_not_change_a_bit(case):
    with cases.threads(1):
        expected = cases.run(case, "cpu")
    for name, n in itertools.product(library.instruction_sets(), (1, 2)):
        with cases.instruction_set(name), cases.threads(n):
            got = cases.run(case, "cpu")
        for key in got:
            if key in ("grad_scale", "grad_shift"):  # torch's own sums; they may depend on the threads
                continue
            cases.assert_same_bits(got[key], expected[key], f"{key} with {name} on {n} threads of {case}")


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@given(case=cases.integrate_fire_cases(cases.LOW_PRECISION, ("grid", "normal")))
def test_low_precision_errs_at_most_twice_as_much_as_plain_torch(case, backend):
    case = case._replace(wide=False)
    exact, plain = cases.run_plain(case, torch.float32), cases.run_plain(case, case.dtype)
    got = cases.run(case, backend)
    for name, right in exact.items():
        assume(cases.largest(right) < torch.finfo(case.dtype).max)
        error, allowed = ((result[name].double() - right).norm() for result in (got, plain))
        assert error <= 2 * allowed + torch.finfo(case.dtype).smallest_normal, f"{name} of {case}"
    if case.junction is None:
        cases.assert_same_bits(got["out"].float(), exact["out"], "spikes of a float32 membrane")


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("payload", [0x7FC00000, 0x7F800001, 0x7FFFFFFF, -1])
def test_any_nan_stays_one_in_low_precision(payload, backend):
    v_init = torch.full((40,), payload, dtype=torch.int32).view(torch.float32)
    for dtype in cases.LOW_PRECISION:
        x_seq = torch.zeros(2, 40, dtype=dtype)
        assert gradient(x_seq, v_init=v_init, backend=backend).isnan().all()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("x", [-3e38, -1e30, -100.0, 100.0, 1e30, 3e38, -math.inf, math.inf])
def test_a_sigmoid_far_from_its_threshold_has_no_gradient_at_all(x, backend):
    assert gradient([[x]], surrogate="sigmoid", alpha=4.0, backend=backend).item() == 0


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("shape", [(10, 0), (10, 0, 3), (10, 0, 3, 8, 8), (10, 2, 0), (1, 2, 3, 0, 8)])
def test_an_empty_batch_gives_empty_spikes_and_gradients(shape, backend):
    affine = len(shape) > 2
    results = cases.run(Case(shape, Neuron(), v_init=True, affine=affine, junction="iand"), backend)
    assert results["out"].shape == results["grad_x_seq"].shape == results["grad_residual"].shape == shape
    assert results["grad_v_init"].shape == shape[1:]
    if affine:
        assert results["grad_scale"].tolist() == [0] * shape[2]


@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_spikes_do_not_depend_on_layout_and_channels_last_is_kept(backend, layout):
    x_seq = torch.rand(5, 1, 3, 6, 7).expand(5, 4, 3, 6, 7).contiguous()
    other = cases.lay_out(x_seq, layout)
    out = functional.multistep_if(other, backend=backend)
    cases.assert_same_bits(out, functional.multistep_if(x_seq, backend=backend))
    assert out.stride() == (other.stride() if layout == "channels_last" else x_seq.stride())


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_inputs_are_left_as_they_were(backend):
    case = Case(MANY_BLOCKS, Neuron(), v_init=True, affine=True, junction="and")
    inputs = cases.inputs_of(case)
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    how = {"junction": "and", "backend": backend}
    cases.outputs_of(lambda **leaves: functional.integrate_fire(**leaves, **how), inputs)
    for name in inputs:
        cases.assert_same_bits(inputs[name], before[name], name)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("junction", JUNCTIONS)
@pytest.mark.parametrize("wanted", ["x_seq", "v_init", "scale", "shift", "residual"])
def test_a_gradient_is_the_same_whether_or_not_others_are_asked_for(wanted, junction, backend):
    case = Case((5, 3, 4, 17), Neuron(), kind="normal", v_init=True, affine=True, junction=junction)
    inputs = cases.inputs_of(case)
    grad_out = inputs.pop("grad_out")
    leaf = inputs[wanted].requires_grad_()
    out = functional.integrate_fire(**inputs, junction=junction, backend=backend)
    alone = torch.autograd.grad(out, leaf, grad_out)[0]
    expected = cases.run(case, backend)[f"grad_{wanted}"]
    # without gradients of the affine, the kernel multiplies by scale itself: the same product
    cases.assert_same_bits(alone, expected, wanted)


def test_nothing_is_recorded_where_no_gradient_is_wanted():
    x_seq = torch.rand(3, 4)
    assert not functional.multistep_if(x_seq).requires_grad
    with torch.no_grad():
        assert not functional.multistep_if(x_seq.requires_grad_()).requires_grad
    assert functional.multistep_if(x_seq).requires_grad


# The op as torch sees it


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
def test_opcheck_accepts_the_forward_and_the_backward_op(backend, layout):
    case = Case((3, 2, 3, 4, 5), Neuron(), layout=layout, v_init=True, affine=True, junction="and")
    inputs = cases.inputs_of(case)
    grad_out = inputs.pop("grad_out")
    tensors = [inputs[name] for name in ("x_seq", "v_init", "scale", "shift", "residual")]
    for arguments in ((*tensors, "and"), (tensors[0], None, None, None, None, None)):
        torch.library.opcheck(torch.ops.fastsnn.integrate_fire.default, (*arguments, *Neuron(), backend))
        backward = torch.ops.fastsnn.integrate_fire_backward.default
        torch.library.opcheck(backward, (grad_out, *arguments, *Neuron(), backend, True))


def test_a_compiled_graph_without_breaks_gives_the_eager_bits():
    # whole numbers and a rectangle as wide as the grid: sums are exact in any order
    neuron = Neuron(surrogate="rectangle", alpha=1.0, detach_reset=True)
    for layout in ("contiguous", "channels_last"):
        case = Case((4, 3, 5, 6, 7), neuron, layout=layout, v_init=True, affine=True, junction="iand")

        def function(**inputs):
            scaled = {**inputs, "x_seq": inputs["x_seq"] * 2}
            return functional.integrate_fire(**scaled, **neuron._asdict(), junction="iand") + 1

        expected = cases.outputs_of(function, cases.inputs_of(case))
        got = cases.outputs_of(torch.compile(function, fullgraph=True), cases.inputs_of(case))
        for name in got:
            cases.assert_same_bits(got[name], expected[name], f"{name}, {layout}")


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_vmap_maps_spikes_and_gradients_over_any_axis(backend):
    x = torch.rand(5, 4, 3, 6)  # time, networks, batch, neurons
    residual = torch.rand(4, 3, 6)

    def spikes(x_seq, r):
        return functional.integrate_fire(x_seq, residual=r.expand_as(x_seq), junction="and", backend=backend)

    def loss(x_seq, r):
        return (spikes(x_seq, r) * x_seq.detach().cos()).sum()

    got = torch.func.vmap(spikes, in_dims=(1, 0))(x, residual)
    gradients = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(1, 0))(x, residual)
    for i in range(4):
        cases.assert_same_bits(got[i], spikes(x[:, i], residual[i]))
        leaves = x[:, i].clone().requires_grad_(), residual[i].clone().requires_grad_()
        for mapped, alone in zip(gradients, torch.autograd.grad(loss(*leaves), leaves), strict=True):
            cases.assert_close(mapped[i], alone, 1e-6)  # expand_as sums over time


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_maps_thresholded_affines_and_starts_of_an_ensemble():
    x_seq, v_init, scale, shift = torch.rand(5, 2, 3, 4), torch.rand(7, 2, 3, 4), torch.rand(7, 3), torch.rand(7, 3)

    def spikes(v_init, scale, shift):
        return functional.integrate_fire(x_seq, v_init=v_init, scale=scale, shift=shift)

    got = torch.func.vmap(spikes)(v_init, scale, shift)
    gradients = torch.func.vmap(torch.func.grad(lambda *a: spikes(*a).sum(), argnums=(0, 1, 2)))(v_init, scale, shift)
    for i in range(7):
        leaves = [tensor[i].clone().requires_grad_() for tensor in (v_init, scale, shift)]
        alone = spikes(*leaves)
        cases.assert_same_bits(got[i], alone.detach())
        for mapped, expected in zip(gradients, torch.autograd.grad(alone.sum(), leaves), strict=True):
            cases.assert_close(mapped[i], expected, 1e-5)


@pytest.mark.parametrize("wanted", ["x_seq", "v_init", "scale", "residual"])
def test_a_second_derivative_is_refused_in_words(wanted):
    inputs = cases.inputs_of(Case((4, 3, 2), Neuron(), kind="normal", v_init=True, affine=True, junction="and"))
    grad_out = inputs.pop("grad_out")
    leaf = inputs[wanted].requires_grad_()
    out = functional.integrate_fire(**inputs, junction="and")
    (gradient,) = torch.autograd.grad(out, leaf, grad_out, create_graph=True)
    with pytest.raises(RuntimeError, match="integrate_fire is differentiable once"):
        torch.autograd.grad(gradient.square().sum(), leaf)


def test_a_second_derivative_is_refused_in_words_by_torch_func_too():
    def loss(x_seq):
        return functional.multistep_if(x_seq).sum()

    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.func.grad(lambda x_seq: torch.func.grad(loss)(x_seq).square().sum())(torch.rand(3, 4))


# Bad input

X = torch.zeros(3, 2, 4, 5)
C = torch.ones(4)
META = torch.zeros(3, 2, 4, 5, device="meta")


BAD_INPUT = [
    ({"x_seq": torch.zeros(3)}, ValueError, r"x_seq has shape \[3\], expected at least \[T, B\]"),
    ({"x_seq": torch.tensor(0.0)}, ValueError, "x_seq has shape"),
    ({"x_seq": torch.zeros(0, 3)}, ValueError, "x_seq .* time axis .* is empty"),
    ({"x_seq": X.double()}, TypeError, "x_seq has dtype float64, expected one of float32, float16, bfloat16"),
    ({"x_seq": X.int()}, TypeError, "x_seq has dtype int32"),
    ({"x_seq": X.bool()}, TypeError, "x_seq has dtype bool"),
    ({"x_seq": X.tolist()}, TypeError, "x_seq is of type list, expected a torch.Tensor"),
    ({"surrogate": "atn"}, ValueError, "surrogate is 'atn', .* 'sigmoid'.* Did you mean 'atan'?"),
    ({"surrogate": None}, ValueError, "surrogate is None"),
    ({"surrogate": ["atan"]}, (TypeError, ValueError), "surrogate"),
    ({"junction": "andnot", "residual": X}, ValueError, "junction is 'andnot'.* Did you mean 'and_not'"),
    ({"backend": "refrence"}, ValueError, "backend is 'refrence'.* Did you mean 'reference'"),
    ({"backend": "cupy"}, ValueError, "backend is 'cupy', expected one of 'reference', 'cpu', 'triton'"),
    ({"alpha": 0.0}, ValueError, "alpha is 0.0, expected a finite number above 0"),
    ({"alpha": -1}, ValueError, "alpha is -1"),
    ({"alpha": math.nan}, ValueError, "alpha is nan"),
    ({"alpha": "2"}, TypeError, "alpha is '2' of type str, expected a number"),
    ({"tau": 1.0}, ValueError, "tau is 1.0, expected a finite number above 1"),
    ({"tau": 0.5}, ValueError, "tau is 0.5"),
    ({"v_threshold": math.inf}, ValueError, "v_threshold is inf, expected a finite number"),
    ({"v_threshold": math.nan}, ValueError, "v_threshold is nan"),
    ({"v_threshold": None}, TypeError, "v_threshold is None"),
    ({"v_threshold": torch.tensor(1.0)}, TypeError, "v_threshold is tensor"),
    ({"v_reset": -math.inf}, ValueError, "v_reset is -inf"),
    ({"v_init": X}, ValueError, r"v_init has shape \[3, 2, 4, 5\], expected \[2, 4, 5\]"),
    ({"v_init": X[0].double()}, TypeError, "v_init has dtype float64"),
    ({"v_init": META[0]}, ValueError, "v_init is on meta but .* on cpu"),
    ({"scale": C}, ValueError, "scale came alone"),
    ({"shift": C}, ValueError, "shift came alone"),
    ({"scale": C[:3], "shift": C}, ValueError, r"scale has shape \[3\], expected \[4\]"),
    ({"scale": C, "shift": C[:, None]}, ValueError, r"shift has shape \[4, 1\], expected \[4\]"),
    ({"scale": C, "shift": C.long()}, TypeError, "shift has dtype int64"),
    ({"scale": 1.0, "shift": C}, TypeError, "scale is of type float"),
    ({"scale": META[0, 0, :, 0], "shift": C}, ValueError, "scale is on meta"),
    ({"x_seq": X[:, :, 0, 0], "scale": C, "shift": C}, ValueError, "x_seq .* scale and shift need channels"),
    ({"residual": X}, ValueError, "residual and junction go together; junction is None"),
    ({"junction": "add"}, ValueError, "residual and junction go together; .* residual is missing"),
    ({"junction": "add", "residual": X[:2]}, ValueError, r"residual has shape \[2, 2, 4, 5\]"),
    ({"junction": "add", "residual": X.half()}, TypeError, "residual has dtype .*float16"),
    ({"junction": "add", "residual": META}, ValueError, "residual is on meta"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), BAD_INPUT, ids=[", ".join(arguments) for arguments, *_ in BAD_INPUT]
)
@pytest.mark.parametrize("requires_grad", [False, True], ids=["no gradients", "with gradients"])
def test_bad_input_is_refused_by_name(arguments, error, message, requires_grad):
    arguments = {"x_seq": X.clone().requires_grad_(requires_grad), **arguments}
    with pytest.raises(error, match=message):
        functional.integrate_fire(**arguments)


def test_a_bad_constant_is_refused_after_a_good_one_that_python_calls_equal():
    functional.multistep_if(X, v_threshold=1.0)
    with pytest.raises(TypeError, match="v_threshold is True"):
        functional.multistep_if(X, v_threshold=True)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_constants_beyond_float32_are_treated_alike(backend):
    assert not functional.multistep_if(X + 1, v_threshold=1e39, backend=backend).any()


def test_a_backend_that_cannot_run_here_is_refused_with_the_reason(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match=r"backend='triton' cannot run here: .*(CUDA tensors|not installed)"):
        functional.multistep_if(X, backend="triton")


def test_forward_mode_is_refused_rather_than_answered_with_zeros():
    x_seq = torch.rand(3, 4)
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(functional.multistep_if, (x_seq,), (torch.ones_like(x_seq),))
