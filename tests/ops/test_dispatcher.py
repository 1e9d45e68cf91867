"""When a call goes through torch's dispatcher, and that its numbers are the same if it does not."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from fastsnn import functional
from fastsnn.ops import dispatcher
from fastsnn.ops.integrate_fire import JUNCTIONS, Neuron, op

from . import cases
from .cases import Case

FORWARD, BACKWARD = "fastsnn::integrate_fire", "fastsnn::integrate_fire_backward"


class Listener(TorchDispatchMode):
    """Writes down the ops that pass through the dispatcher."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.name())
        return func(*args, **(kwargs or {}))


class Wrapped(torch.Tensor):
    """A subclass that changes nothing."""


@contextlib.contextmanager
def paths(monkeypatch):
    """A list that fills with the path each call of the neurons takes: through the dispatcher or past it."""
    taken = []

    def noting(name, function):
        def noted(*given):
            before = len(taken)
            result = function(*given)
            taken[before:] = [name]  # an op calls in turn the function that is called past it
            return result

        return noted

    with monkeypatch.context() as patch:
        for name in ("_forward", "_backward"):
            patch.setattr(op, name, noting("past", getattr(op, name)))
        for name in ("_FORWARD", "_BACKWARD"):
            patch.setattr(op, name, noting("through", getattr(op, name)))
        yield taken


def forward_and_backward(x_seq=None):
    x_seq = torch.rand(3, 4) if x_seq is None else x_seq
    leaf = x_seq.detach().requires_grad_()
    spikes = functional.multistep_if(leaf)
    return spikes.detach(), torch.autograd.grad(spikes, leaf, torch.ones_like(spikes))[0]


# Whether it is needed


def test_it_is_not_needed_for_plain_tensors_and_parameters():
    x = torch.rand(3)
    assert not dispatcher.is_needed()
    assert not dispatcher.is_needed(x, None, torch.nn.Parameter(x), x.clone().requires_grad_(), x.bfloat16(), x[:0])
    with torch.no_grad():
        assert not dispatcher.is_needed(x)
    with torch.inference_mode():
        assert not dispatcher.is_needed(x, torch.rand(2))
    with torch.autocast("cpu"), torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        assert not dispatcher.is_needed(x)


@pytest.mark.parametrize("mode", [Listener, FakeTensorMode])
def test_it_is_needed_under_a_mode_and_not_after_it(mode):
    x = torch.rand(3)
    with mode():
        assert dispatcher.is_needed(x) and dispatcher.is_needed()
        with Listener():
            assert dispatcher.is_needed(x)
    assert not dispatcher.is_needed(x)
    with contextlib.suppress(ValueError), mode():
        raise ValueError
    assert not dispatcher.is_needed(x)


def test_it_is_needed_for_tensors_without_plain_memory_in_any_place():
    x, fakes = torch.rand(3), FakeTensorMode()
    for other in (fakes.from_tensor(x), x.to("meta"), x.as_subclass(Wrapped)):
        assert dispatcher.is_needed(other) and dispatcher.is_needed(None, x, other) and dispatcher.is_needed(other, x)
    assert not dispatcher.is_needed(x)


@pytest.mark.parametrize(
    "transform",
    [
        torch.func.vmap,
        lambda f: torch.func.grad(lambda x: f(x).sum()),
        lambda f: lambda x: torch.func.vjp(f, x)[0],
        torch.func.functionalize,
    ],
    ids=["vmap", "grad", "vjp", "functionalize"],
)
def test_it_is_needed_under_a_transform_also_for_tensors_that_it_does_not_wrap(transform):
    constant, answers = torch.rand(3), []

    def asked(x):
        answers.extend([dispatcher.is_needed(x), dispatcher.is_needed(constant), dispatcher.is_needed()])
        return x * constant

    transform(asked)(torch.rand(2, 3))
    assert answers == [True] * 3 and not dispatcher.is_needed(constant)


def test_it_is_needed_while_torch_compiles():
    def answered(x):
        return x + 1 if dispatcher.is_needed(x) else x - 1

    x = torch.zeros(3)
    assert torch.equal(torch.compile(answered, fullgraph=True, backend="eager")(x), x + 1)
    assert torch.equal(answered(x), x - 1)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")
def test_it_is_needed_while_torch_traces():
    answers = []

    def asked(x):
        answers.append(dispatcher.is_needed(x))
        return x + 1

    torch.jit.trace(asked, torch.rand(3), check_trace=False)
    make_fx(asked)(torch.rand(3))
    assert all(answers) and len(answers) == 2


# What follows from it


def test_plain_tensors_go_past_it_forward_and_backward(monkeypatch):
    with paths(monkeypatch) as taken:
        forward_and_backward()
        functional.multistep_if(torch.rand(3, 4))
    assert taken == ["past"] * 3


def test_a_mode_sees_the_op_of_the_forward_and_of_the_backward_pass(monkeypatch):
    expected = forward_and_backward(x_seq := torch.rand(3, 4))
    with paths(monkeypatch) as taken, Listener() as listener:
        got = forward_and_backward(x_seq)
    assert taken == ["through"] * 2
    assert [name for name in listener.seen if name.startswith("fastsnn")] == [FORWARD, BACKWARD]
    for ours, theirs in zip(got, expected, strict=True):
        cases.assert_same_bits(ours, theirs)


def test_a_mode_round_the_backward_pass_alone_sees_its_op():
    leaf = torch.rand(3, 4, requires_grad=True)
    spikes = functional.multistep_if(leaf)
    with Listener() as listener:
        spikes.sum().backward()
    assert BACKWARD in listener.seen and FORWARD not in listener.seen


def test_a_traced_graph_holds_the_op():
    graph = make_fx(lambda x_seq: functional.multistep_if(x_seq + 0.5))(torch.zeros(3, 4))
    assert torch.ops.fastsnn.integrate_fire.default in [node.target for node in graph.graph.nodes]
    x_seq = torch.rand(3, 4)
    assert torch.equal(graph(x_seq), functional.multistep_if(x_seq + 0.5))


def test_tensors_without_memory_get_shapes_and_no_numbers():
    x_seq = torch.rand(3, 4)
    assert functional.multistep_if(x_seq.to("meta")).shape == (3, 4)
    with FakeTensorMode() as mode:
        spikes = functional.multistep_if(torch.rand(3, 4))
    assert spikes.fake_mode is mode and spikes.shape == (3, 4)
    assert torch.equal(functional.multistep_if(x_seq.as_subclass(Wrapped)), functional.multistep_if(x_seq))


def test_a_profiler_changes_neither_the_path_nor_a_bit(monkeypatch):
    x_seq = torch.rand(3, 4)
    with paths(monkeypatch) as taken:
        expected = forward_and_backward(x_seq)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True):
            got = forward_and_backward(x_seq)
    assert taken == ["past"] * 4
    for ours, theirs in zip(got, expected, strict=True):
        cases.assert_same_bits(ours, theirs)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("kind", ["contiguous", "channels_last", "transposed"])
@pytest.mark.parametrize("junction", (None, *JUNCTIONS))
def test_results_through_and_past_it_are_equal_bit_for_bit(junction, kind, backend, monkeypatch):
    neuron = Neuron(tau=2.0, v_reset=None, detach_reset=False)
    for dtype in (torch.float32, torch.bfloat16):
        for extras in (False, True):
            how = {"v_init": extras, "affine": extras, "junction": junction}
            case = Case((4, 2, 5, 3, 7), neuron, dtype, "normal", kind, **how)
            results = []
            for needed in (False, True):
                with monkeypatch.context() as patch, paths(monkeypatch) as taken:
                    patch.setattr(dispatcher, "is_needed", lambda *_, needed=needed: needed)
                    results.append(cases.run(case, backend))
                assert taken == ["through" if needed else "past"] * 2
            past, through = results
            assert past.keys() == through.keys()
            for name in past:
                cases.assert_same_bits(past[name], through[name], f"{name} of {case}")
                assert past[name].stride() == through[name].stride(), name
