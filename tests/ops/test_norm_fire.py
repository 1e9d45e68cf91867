"""Batch norm's passes against float64, and the step that they are part of against torch's batch norm and autograd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastsnn import functional
from fastsnn.ops import library
from fastsnn.ops.integrate_fire import JUNCTIONS, Neuron
from fastsnn.ops.norm_fire import cpu, norm_fire, reference

from . import cases

EPS, ROUNDING = 1e-5, 2**-24
SHAPES = {
    "two values": (1, 2, 1, 1, 1),
    "one channel": (3, 1, 1, 5, 7),
    "one channel, chunks": (2, 2, 1, 100, 90),
    "16 channels, one pixel": (2, 3, 16, 1, 1),
    "17 channels": (4, 2, 17, 3, 5),
    "33 channels, chunks": (3, 2, 33, 17, 13),
    "64 channels, whole chunks": (4, 2, 64, 8, 8),
    "2000 channels, 17 rows": (17, 1, 2000, 1, 1),
}
OFFSETS = (0.0, 100.0)
NEURONS = {
    "IF": Neuron(),
    "LIF": Neuron(v_threshold=0.5, tau=2.0),
    "soft reset": Neuron(v_reset=None, surrogate="sigmoid", detach_reset=False),
}
every_instruction_set = pytest.mark.parametrize("isa", library.instruction_sets())
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
every_offset = pytest.mark.parametrize("offset", OFFSETS)


# The passes


def frames(shape, offset=0.0):
    """Normal numbers in channels-last frames, each channel with a mean and a width of its own."""
    width = 0.5 + torch.rand(shape[2], 1, 1)
    return cases.lay_out(torch.randn(shape) * width + offset * width, "channels_last")


def over_channels(x_seq):
    """[T, B, C, H, W] -> float64 [values, C]."""
    return x_seq.double().movedim(2, -1).flatten(0, -2)


def passes(x_seq, grad):
    """What the kernels make of x_seq, by name."""
    mean, var = cpu.statistics(x_seq)
    first, second = cpu.sums(grad, x_seq, mean)
    constants = (var.rsqrt(), second / 7, first / 3)
    return {"mean": mean, "var": var, "sum": first, "weighted sum": second} | {
        "affine": cpu.affine(grad.clone(), x_seq, *constants)
    }


@every_instruction_set
@every_offset
@every_shape
def test_statistics_and_sums_are_exact_to_a_few_roundings(shape, offset, isa):
    x_seq, grad = frames(shape, offset), frames(shape, 0.3)
    x, g = over_channels(x_seq), over_channels(grad)
    with cases.instruction_set(isa):
        mean, var = cpu.statistics(x_seq)
        first, second = cpu.sums(grad, x_seq, mean)
    centred = x - mean.double()  # the gradient is that of the mean in use
    assert (mean - x.mean(0)).abs().le(8 * ROUNDING * x.abs().mean(0)).all()
    assert (var - x.var(0, correction=0)).abs().le(8 * ROUNDING * x.var(0, correction=0)).all()
    assert (first - g.sum(0)).abs().le(8 * ROUNDING * g.abs().sum(0)).all()
    assert (second - (g * centred).sum(0)).abs().le(8 * ROUNDING * (g * centred).abs().sum(0)).all()
    for result in (mean, var, first, second):
        assert result.dtype == torch.float32 and result.shape == shape[2:3]


@every_instruction_set
@every_shape
def test_the_affine_rounds_as_plain_float32_does_and_overwrites_the_gradient(shape, isa):
    x_seq, grad = frames(shape), frames(shape)
    constants = torch.randn(3, shape[2])
    expected = reference.affine(grad, x_seq, *constants)
    with cases.instruction_set(isa):
        out = cpu.affine(grad, x_seq, *constants)
    assert out is grad
    cases.assert_same_bits(out, expected)


@every_offset
@every_shape
def test_the_reference_computes_the_same_statistics_and_sums(shape, offset):
    x_seq, grad = frames(shape, offset), frames(shape, 0.3)
    mean, var = reference.statistics(x_seq)
    first, second = reference.sums(grad, x_seq, mean)
    kernels = (*cpu.statistics(x_seq), *cpu.sums(grad, x_seq, mean))
    for ours, theirs in zip(kernels, (mean, var, first, second), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=2e-6 * x_seq.numel() / shape[2])


@pytest.mark.parametrize("offset", [0.0, 1.0, 100.0, 1000.0])
@pytest.mark.parametrize("shape", [(4, 2, 256, 4, 4), (2, 3, 100, 9, 9)], ids=str)
def test_normal_values_err_at_most_16_tenths_of_torchs_on_contiguous_frames_and_less_than_on_channels_last(
    shape, offset
):
    # 1.1 to 1.5 measured: torch rounds x * scale + shift once, the neurons' kernel by design twice
    x_seq = frames(shape, offset)
    exact, contiguous, channels_last = (
        F.batch_norm(form.flatten(0, 1), None, None, training=True, eps=EPS)
        for form in (x_seq.double(), x_seq.contiguous(), x_seq)
    )
    mean, var = cpu.statistics(x_seq)
    scale = (var + EPS).rsqrt()
    got = (x_seq * scale.view(-1, 1, 1) - (mean * scale).view(-1, 1, 1)).flatten(0, 1)
    cases.assert_errs_at_most(1.6, got, contiguous, exact)
    cases.assert_errs_at_most(1, got, channels_last, exact)


@every_offset
@every_shape
def test_threads_and_instruction_sets_change_no_bit(shape, offset):
    x_seq, grad = frames(shape, offset), frames(shape, 0.3)
    with cases.threads(1), cases.instruction_set("baseline"):
        expected = passes(x_seq, grad)
    for isa in library.instruction_sets():
        for n in (1, 2):
            with cases.threads(n), cases.instruction_set(isa):
                for name, got in passes(x_seq, grad).items():
                    cases.assert_same_bits(got, expected[name], f"{name}, {isa}, {n} threads")


def test_a_channel_takes_nothing_from_its_neighbours():
    x_seq, grad = frames((3, 2, 19, 17, 13)), frames((3, 2, 19, 17, 13))
    expected = passes(x_seq, grad)
    spoilt = [tensor.clone() for tensor in (x_seq, grad)]
    for tensor in spoilt:
        tensor[:, :, [3, 17]] = torch.nan
    spared = [channel for channel in range(19) if channel not in (3, 17)]
    for name, got in passes(*spoilt).items():
        axis = 2 if name == "affine" else 0
        index = torch.tensor(spared)
        cases.assert_same_bits(got.index_select(axis, index), expected[name].index_select(axis, index), name)
        assert got.index_select(axis, torch.tensor([3, 17])).isnan().all()


def test_a_default_device_or_dtype_is_not_that_of_the_passes():
    x_seq, grad = frames((3, 2, 17, 5, 5)), frames((3, 2, 17, 5, 5))
    expected = passes(x_seq, grad)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            got = passes(x_seq, grad)
    finally:
        torch.set_default_dtype(torch.float32)
    for name in got:
        cases.assert_same_bits(got[name], expected[name], name)


def test_the_kernels_take_float32_with_channels_innermost_and_nothing_else(monkeypatch):
    x_seq = frames((3, 2, 5, 4, 4))
    assert cpu.serves(x_seq) and cpu.serves(torch.rand(3, 2, 5, 1, 1)) and cpu.serves(torch.rand(3, 2, 5))
    others = (x_seq.contiguous(), x_seq.bfloat16(), x_seq.half(), x_seq.double(), x_seq[:0], x_seq.to("meta"))
    assert not any(map(cpu.serves, (*others, x_seq[..., ::2], x_seq.mT)))
    monkeypatch.setattr(library, "unavailable", lambda: "not built")
    assert not cpu.serves(x_seq)


# The step


def inputs(shape=(4, 3, 7, 5, 3), junction=None, offset=0.0, affine=True):
    """The step's tensors by name, with the gradient that comes in as "grad_out"."""
    tensors = {"x_seq": frames(shape, offset), "grad_out": frames(shape)}
    if affine:
        tensors |= {"weight": 1 + torch.rand(shape[2]), "bias": torch.randn(shape[2]) / 3}
    if junction:
        tensors["residual"] = cases.lay_out(torch.randint(0, 3, shape).float(), "channels_last")
    return tensors


def step(neuron, junction=None):
    """The function under test, for cases.outputs_of."""

    def run(x_seq, weight=None, bias=None, residual=None):
        return norm_fire(x_seq, weight, bias, EPS, neuron, residual, junction)[0]

    return run


def plain(neuron, junction=None):
    """The same from torch's batch norm on contiguous frames and a neuron in plain autograd."""

    def run(x_seq, weight=None, bias=None, residual=None):
        frames = x_seq.contiguous().flatten(0, 1)
        normal = F.batch_norm(frames, None, None, weight, bias, training=True, eps=EPS).unflatten(0, x_seq.shape[:2])
        return cases.plain_integrate_fire(normal, neuron=neuron, residual=residual, junction=junction)

    return run


def assert_near_float64(neuron, junction, tensors):
    """Equal spikes, and gradients that are a millionth off, or at most thrice as far as torch's in float32."""
    got = cases.outputs_of(step(neuron, junction), tensors)
    rough = cases.outputs_of(plain(neuron, junction), tensors)
    exact = cases.outputs_of(plain(neuron, junction), {name: tensor.double() for name, tensor in tensors.items()})
    assert 0.05 < (exact["out"] != 0).double().mean() < 1
    assert torch.equal(got["out"].double(), exact["out"]) and got.keys() == exact.keys()
    for name in got:
        allowed = max(1e-6 * exact[name].norm(), 3 * (rough[name] - exact[name]).norm())
        assert (got[name] - exact[name]).norm() <= allowed, name


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "no affine"])
@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS.keys())
@pytest.mark.parametrize("junction", (None, *JUNCTIONS))
def test_spikes_and_gradients_are_those_of_torchs_batch_norm_in_float64(junction, neuron, affine):
    tensors = inputs(junction=junction, affine=affine)
    for isa in library.instruction_sets():
        with cases.instruction_set(isa):
            assert_near_float64(neuron, junction, tensors)


@pytest.mark.parametrize("shape", [(5, 2, 1, 3, 3), (5, 9, 16, 1, 1), (3, 2, 33, 17, 13)], ids=str)
def test_spikes_and_gradients_are_as_exact_at_odd_shapes_and_off_centre(shape):
    for offset in (0.0, 3.0):
        assert_near_float64(Neuron(), "iand", inputs(shape, "iand", offset))


def test_only_a_weight_or_only_a_bias_is_taken_too():
    for missing in ("weight", "bias"):
        tensors = inputs()
        del tensors[missing]
        assert_near_float64(Neuron(), None, tensors)


@pytest.mark.parametrize("kind", cases.LAYOUTS)
@pytest.mark.parametrize("junction", (None, "and"))
def test_any_layout_gives_the_output_and_gradients_of_channels_last_frames(junction, kind):
    tensors = inputs(junction=junction)
    strewn, same = {**tensors}, {**tensors}
    for name in tensors.keys() - {"weight", "bias"}:
        strewn[name] = cases.lay_out(tensors[name].contiguous(), kind)
        same[name] = cases.lay_out(strewn[name].contiguous(), "channels_last")
    expected, got = (cases.outputs_of(step(Neuron(), junction), given) for given in (same, strewn))
    assert torch.equal(got["out"], expected["out"])
    for name in got:
        assert (got[name] - expected[name]).norm() <= 1e-6 * expected[name].norm(), name


def test_contiguous_and_low_precision_frames_take_the_reference_passes(monkeypatch):
    monkeypatch.setattr(cpu, "_sums", None)
    tensors = inputs(junction="add")
    for name in ("x_seq", "residual", "grad_out"):
        tensors[name] = tensors[name].contiguous()
    assert_near_float64(Neuron(), "add", tensors)
    for dtype in (torch.bfloat16, torch.float16):
        low = {name: tensor.to(dtype) if tensor.dim() == 5 else tensor for name, tensor in tensors.items()}
        got = cases.outputs_of(step(Neuron(), "add"), low)
        wide = cases.outputs_of(step(Neuron(), "add"), {name: tensor.float() for name, tensor in low.items()})
        assert got["out"].dtype == got["grad_x_seq"].dtype == dtype and got["grad_weight"].dtype == torch.float32
        assert torch.equal(got["out"].float(), wide["out"])
        for name in got:
            error = (got[name].float() - wide[name]).norm() / wide[name].norm()
            assert error <= 2 * torch.finfo(dtype).eps, name
    monkeypatch.undo()
    monkeypatch.setattr(reference, "statistics", None)
    cases.outputs_of(step(Neuron()), inputs())  # and channels-last ones do not


def test_the_step_has_the_same_bits_on_any_number_of_threads():
    tensors = inputs((4, 4, 20, 24, 24), "and")
    with cases.threads(1):
        expected = cases.outputs_of(step(Neuron(), "and"), tensors)
    with cases.threads(2):
        got = cases.outputs_of(step(Neuron(), "and"), tensors)
    for name in got:
        cases.assert_same_bits(got[name], expected[name], name)


def test_what_comes_with_the_output_are_the_batchs_statistics_and_what_they_amount_to():
    tensors = inputs()
    out, fired = norm_fire(tensors["x_seq"], tensors["weight"], tensors["bias"], EPS, Neuron())
    x = over_channels(tensors["x_seq"])
    assert fired.count == len(x) == 4 * 3 * 5 * 3
    torch.testing.assert_close(fired.mean.double(), x.mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(fired.var.double(), x.var(0, correction=0), rtol=1e-6, atol=0)
    again = functional.integrate_fire(tensors["x_seq"], scale=fired.scale, shift=fired.shift)
    assert torch.equal(out, again)


def test_inputs_and_the_gradient_that_comes_in_are_left_alone():
    tensors = inputs(junction="and")
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    cases.outputs_of(step(Neuron(), "and"), tensors)
    for name in tensors:
        cases.assert_same_bits(tensors[name], before[name], name)


@pytest.mark.parametrize("junction", (None, *JUNCTIONS))
def test_a_gradient_is_the_same_whether_or_not_others_are_asked_for(junction):
    tensors = inputs(junction=junction)
    expected = cases.outputs_of(step(Neuron(), junction), tensors)
    names = [name for name in tensors if name != "grad_out"]
    for wanted in names:
        constants = [name for name in names if name != wanted]
        got = cases.outputs_of(step(Neuron(), junction), tensors, constants)
        assert got.keys() == {"out", f"grad_{wanted}"}
        cases.assert_same_bits(got[f"grad_{wanted}"], expected[f"grad_{wanted}"], wanted)


def test_only_what_asks_for_a_gradient_gets_one():
    tensors = inputs(junction="and")
    tensors["bias"].requires_grad_()
    grad_out = tensors.pop("grad_out")
    out = step(Neuron(), "and")(**tensors)
    returned = out.grad_fn.apply(grad_out)  # by the backward pass itself
    assert returned[1] is None and returned[2] is not None
    out.backward(grad_out)
    assert [name for name, tensor in tensors.items() if tensor.grad is not None] == ["bias"]
    with torch.no_grad():
        assert not step(Neuron(), "and")(**tensors).requires_grad


@pytest.mark.parametrize("kind", ["channels_last", "contiguous"])
@pytest.mark.parametrize("junction", (None, *JUNCTIONS))
def test_a_second_derivative_is_refused_in_words(junction, kind):
    tensors = inputs(junction=junction)
    grad_out = tensors.pop("grad_out")
    for name in tensors.keys() - {"weight", "bias"}:
        tensors[name] = cases.lay_out(tensors[name].contiguous(), kind)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    out = step(Neuron(), junction)(**tensors)
    for gradient in torch.autograd.grad(out, leaves, grad_out.requires_grad_(), create_graph=True):
        if gradient is not grad_out:  # which "add" passes on
            with pytest.raises(RuntimeError, match="norm_fire is differentiable once"):
                gradient.square().sum().backward(retain_graph=True)


def test_gradients_in_a_plain_backward_pass_carry_no_graph():
    assert not any(tensor.requires_grad for tensor in cases.outputs_of(step(Neuron()), inputs()).values())


@pytest.mark.parametrize("junction", (None, *JUNCTIONS))
def test_autograd_keeps_the_input_and_what_a_junction_multiplies_with(junction):
    tensors, saved = inputs(junction=junction), []
    tensors.pop("grad_out")
    leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        step(Neuron(), junction)(**leaves)
    kept = ["x_seq"] if junction in (None, "add") else ["x_seq", "residual"]
    assert [tensor.data_ptr() for tensor in saved] == [leaves[name].data_ptr() for name in kept]


# Bad input


@pytest.mark.parametrize("shape", [(1, 1, 5, 1, 1), (3, 0, 5, 2, 2)], ids=str)
def test_one_value_per_channel_is_refused_in_a_sentence(shape):
    with pytest.raises(
        ValueError, match=r"x_seq has shape \[\d, \d, 5, \d, \d\]: batch statistics need two values per"
    ):
        step(Neuron())(torch.rand(shape))


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_parameter_of_another_size_is_refused_by_name(name):
    for size in (1, 6):
        tensors = inputs() | {name: torch.ones(size)}
        tensors.pop("grad_out")
        with pytest.raises(ValueError, match=rf"{name} has shape \[{size}\], expected \[7\]"):
            step(Neuron())(**tensors)


def test_a_residual_of_another_shape_is_refused_by_name():
    tensors = inputs()
    with pytest.raises(ValueError, match=r"residual has shape \[4, 3, 7, 5, 2\]"):
        step(Neuron(), "add")(tensors["x_seq"], residual=tensors["x_seq"][..., :2])
