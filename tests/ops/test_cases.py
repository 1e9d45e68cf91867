"""The tests can fail: every fault planted here is noticed by the comparison that the other tests make."""

import importlib
import inspect
import types

import pytest
import torch

from fastsnn import functional
from fastsnn.ops import backends
from fastsnn.ops.integrate_fire import Neuron

from . import cases, test_attack_step, test_integrate_fire, test_phase_encode
from .cases import Case

NOT_DETACHED, SOFT, LEAKY = Neuron(detach_reset=False, v_reset=0.3), Neuron(v_reset=None), Neuron(tau=2.0)
RECTANGLE, TRIANGLE, SIGMOID = (Neuron(surrogate=name) for name in ("rectangle", "triangle", "sigmoid"))
BY_HAND = test_integrate_fire.TestByHand()


def plant(monkeypatch, op: str, right: str, wrong: str) -> None:
    """Let an op run a copy of its reference in which one piece of the source is replaced."""
    source = inspect.getsource(importlib.import_module(f"fastsnn.ops.{op}.reference"))
    code = source.partition('"""\n\nfrom __future__')[2]
    assert code.count(right) == 1, f"{right!r} is in the code {code.count(right)} times, expected once"
    faulty = types.ModuleType(f"fastsnn.ops.{op}.faulty")
    faulty.__package__ = f"fastsnn.ops.{op}"
    exec(compile("from __future__" + code.replace(right, wrong), faulty.__name__, "exec"), faulty.__dict__)
    right_one = backends._module
    planted = {(op, "reference"): faulty}
    monkeypatch.setattr(backends, "_module", lambda *which: planted.get(which) or right_one(*which))


@pytest.mark.parametrize(
    ("right", "wrong", "neuron"),
    [
        ("h >= neuron.v_threshold", "h > neuron.v_threshold", Neuron()),
        ("torch.where(fired, neuron.v_reset, h)", "torch.where(fired, neuron.v_reset + 0.01, h)", Neuron()),
        ("torch.where(fired, neuron.v_reset, h)", "h - spikes * neuron.v_threshold", Neuron()),
        ("h - spikes * neuron.v_threshold if", "h * (1 - spikes) if", SOFT),
        ("neuron.v_rest, dtype", "0.0, dtype", NOT_DETACHED),
        ("(v - neuron.v_rest)) / _on", "(v - neuron.v_rest)) * 0.999 / _on", LEAKY),
        ("math.pi / 2 * alpha", "math.pi / 2 * alpha * 1.00001", Neuron()),
        ("(alpha / 2) / (1 + z * z)", "alpha / 2 * (1 / (1 + z * z)) * 1.0000001", Neuron()),
        ("u.abs() < 0.5 / alpha", "u.abs() < 1 / alpha", RECTANGLE),
        ("u.abs() < 0.5 / alpha", "u.abs() <= 0.5 / alpha", RECTANGLE),
        ("alpha - alpha * alpha * u.abs()", "alpha - alpha * u.abs()", TRIANGLE),
        ("torch.sigmoid(alpha * u)", "torch.sigmoid(1.0001 * alpha * u)", SIGMOID),
        ("torch.where(spikes > 0, 0.0, carry)", "carry", Neuron()),
        ("carry * h + carry * neuron.v_reset", "carry * h", NOT_DETACHED),
        ("carry = gh if leak is None else gh - leak", "carry = gh", LEAKY),
        ("return grad * r, grad * s", "return grad * s, grad * r", Neuron()),
        (
            "grad_x = torch.empty_like(x_seq)\n",
            "grad_x = torch.empty_like(x_seq)\n    return grad_x, x_seq[0], x_seq\n",
            SOFT,
        ),
    ],
)
def test_a_faulty_neuron_is_noticed_by_the_comparison_of_backends(monkeypatch, right, wrong, neuron):
    the_cases = [
        Case((10, 3, 5, 7), neuron, kind=kind, v_init=kind == "normal", junction="and") for kind in ("grid", "normal")
    ]
    for case in the_cases:
        cases.assert_backends_agree(case, "cpu")
    plant(monkeypatch, "integrate_fire", right, wrong)
    with pytest.raises(AssertionError, match=r"differ|off by"):
        for case in the_cases:
            cases.assert_backends_agree(case, "cpu")


@pytest.mark.parametrize(
    ("right", "wrong", "proof"),
    [
        ("h >= neuron.v_threshold", "h > neuron.v_threshold", "a_voltage_exactly_at_the_threshold_fires"),
        (
            "torch.where(fired, neuron.v_reset, h)",
            "torch.where(fired, 0.25, h)",
            "a_constant_current_of_04_fires_at_the_third_step",
        ),
        ("torch.where(fired, neuron.v_reset, h)", "(1 - spikes) * h", "an_infinite_voltage_fires_and_resets"),
        ("neuron.v_rest, dtype", "0.0, dtype", "a_neuron_starts_at_its_reset_voltage_or_at_v_init"),
        ("math.pi / 2 * alpha", "math.pi * alpha", "gradients_reach_back_through_quiet_steps_and_stop_at_a_spike"),
        (
            "- carry * h + carry * neuron.v_reset",
            "+ carry * neuron.v_reset",
            "a_reset_that_is_not_detached_carries_the_gradient_of_the_spike",
        ),
    ],
)
def test_a_faulty_neuron_is_noticed_by_the_cases_done_by_hand(monkeypatch, right, wrong, proof):
    prove = getattr(BY_HAND, f"test_{proof}")
    prove("reference")
    plant(monkeypatch, "integrate_fire", right, wrong)
    with pytest.raises(AssertionError):
        prove("reference")


@pytest.mark.parametrize(
    ("right", "wrong", "how"),
    [
        ("h >= neuron.v_threshold", "h > neuron.v_threshold", {}),
        ("torch.where(fired, neuron.v_reset, h)", "torch.where(fired, neuron.v_reset + 0.01, h)", {}),
        ("math.pi / 2 * alpha", "math.pi / 2 * alpha * 1.00001", {}),
        ("u.abs() < 0.5 / alpha", "u.abs() < 0.4 / alpha", {"surrogate": "rectangle", "alpha": 0.5}),
        ("- carry * h +", "- carry * h * 1.00001 +", {"detach_reset": False}),
    ],
)
def test_a_faulty_neuron_is_noticed_beside_spikingjelly(monkeypatch, right, wrong, how):
    how = {
        "surrogate": "atan",
        "alpha": 2.0,
        "decay": "if",
        "v_reset": 0.0,
        "detach_reset": True,
        "training": True,
    } | how
    test_integrate_fire.test_spikes_and_gradients_are_those_of_spikingjelly(**how, kind="grid")
    plant(monkeypatch, "integrate_fire", right, wrong)
    with pytest.raises(AssertionError, match=r"differ|off by"):
        test_integrate_fire.test_spikes_and_gradients_are_those_of_spikingjelly(**how, kind="grid")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("K - 1 - t % K", "t % K"),
        ("K - 1 - t % K", "K - 1 - min(t, K - 1)"),
        ("2**K - 1", "2**K"),
        ("torch.round(", "torch.floor("),
        ("-(1 + t % K)", "-(t % K)"),
    ],
)
def test_a_faulty_encoder_is_noticed(monkeypatch, right, wrong):
    def compare():
        for images in (test_phase_encode.EVERY_PIXEL, torch.rand(100)):
            got, expected = (
                functional.phase_encode(images, weighted=True, backend=name) for name in ("cpu", "reference")
            )
            cases.assert_same_bits(got, expected)

    compare()
    plant(monkeypatch, "phase_encode", right, wrong)
    with pytest.raises(AssertionError, match="differ"):
        compare()


def test_a_wrong_order_of_phases_is_noticed_beside_spikingjelly(monkeypatch):
    plant(monkeypatch, "phase_encode", "K - 1 - t % K", "t % K")
    with pytest.raises(AssertionError, match="differ"):
        test_phase_encode.test_spikes_on_uint8_are_those_of_spikingjellys_encoder(10)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("> eps.double()", "> eps.double() * 2"), ("if exact:", "if False:"), (".clamp(0, 1)", ".clamp(0, 2)")],
)
def test_a_step_that_leaves_the_ball_is_noticed(monkeypatch, right, wrong):
    test_attack_step.test_the_budget_holds_in_rational_numbers_and_is_used_up(6 / 255, "reference")
    plant(monkeypatch, "attack_step", right, wrong)
    with pytest.raises(AssertionError):
        test_attack_step.test_the_budget_holds_in_rational_numbers_and_is_used_up(6 / 255, "reference")


@pytest.mark.parametrize("wrong", [1.0000001, -1.0, float("nan"), float("inf")])
def test_equal_bits_means_equal_bits(wrong):
    right = torch.tensor([0.0, 1.0, float("nan")])
    cases.assert_same_bits(right, right.clone())
    with pytest.raises(AssertionError, match="1 of 3 differ"):
        cases.assert_same_bits(torch.tensor([0.0, wrong, float("nan")]), right)
    with pytest.raises(AssertionError, match="1 of 3 differ"):
        cases.assert_same_bits(torch.tensor([-0.0, 1.0, float("nan")]), right)
    with pytest.raises(AssertionError, match=r"expected torch\.float16"):
        cases.assert_same_bits(right, right.half())
    with pytest.raises(AssertionError, match="shape"):
        cases.assert_same_bits(right, right[None])
    with pytest.raises(AssertionError, match="off by"):
        cases.assert_close(torch.tensor([0.0, wrong, 0.0]), right, 1e-8)
