"""A tape does what the step did, from what now lies where it read: random programs, kernels, and what is refused."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fastsnn import functional
from fastsnn.ops import library, tape
from fastsnn.ops.matrix import Matrix

needs_kernels = pytest.mark.skipif(bool(library.unavailable()), reason=f"needs kernels: {library.unavailable()}")


def recorded(step):
    """Record a step, then spoil the memory that its tape works in."""
    made = tape.record(step)
    assert not made.refused
    arena = torch.empty(0, dtype=torch.uint8).set_(made._kept[0])
    arena.fill_(255)  # NaN in every type
    return made


class Of:
    """A step that keeps what a function returns for `x`, which tests change in place."""

    def __init__(self, function, *x):
        self.function, self.x, self.out = function, x, None

    def __call__(self):
        self.out = None
        self.out = self.function(*self.x)

    def check(self):
        """Play on other numbers, twice, and compare with the function."""
        made = recorded(self)
        out, places = self.out, [tensor.data_ptr() for tensor in self.x]
        for _ in range(2):
            for tensor in self.x:
                tensor.copy_(torch.rand_like(tensor) * 2 - 1)
            made.play()
            expected = self.function(*self.x)
            torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
            assert out.stride() == expected.stride()
        assert places == [tensor.data_ptr() for tensor in self.x]
        return made


# Random programs: tensors come and go, and share memory

OPERATORS = [
    lambda a, b: a + b,
    lambda a, b: a.mul(b),
    lambda a, b: a.clone(),
    lambda a, b: a.t().contiguous().t(),
    lambda a, b: a.t() @ b.t(),
    lambda a, b: torch.cat([a, b])[::2],
    lambda a, b: torch.stack([a, b]).sum(0),
    lambda a, b: torch.zeros_like(a).add_(b),
    lambda a, b: a.new_zeros(a.shape).copy_(b),
    lambda a, b: a.double().sin().float(),
    lambda a, b: a.unbind()[0] + b,
    lambda a, b: torch.where(a > b, a, b),
    lambda a, b: a.reshape(-1).flip(0).view(a.shape),
    lambda a, b: F.relu(a) - b.abs().amax(1, keepdim=True),
    lambda a, b: F.log_softmax(a, 1),
    lambda a, b: torch.empty_like(a).fill_(0.5).addcmul_(a, b),
    lambda a, b: F.pad(a, (1, 1))[:, 1:-1],
    lambda a, b: a.index_select(0, torch.arange(a.shape[0] - 1, -1, -1)),
]


def program(choices):
    """Return the function that computes with a pool of four tensors, each choice replacing one of them."""

    def run(*x):
        pool = [*x, *x]
        for operator, a, b, into in choices:
            pool[into] = OPERATORS[operator](pool[a], pool[b])
        return torch.stack(pool)

    return run


numbers = st.integers(0, 3)
steps = st.tuples(st.integers(0, len(OPERATORS) - 1), numbers, numbers, numbers)


@given(st.lists(steps, min_size=1, max_size=60))
def test_random_programs_are_done_again(choices):
    Of(program(choices), torch.rand(7, 7), torch.rand(7, 7)).check()


def test_every_operator_of_the_programs_is_done_again():
    for operator in range(len(OPERATORS)):
        Of(program([(operator, 0, 1, 2)]), torch.rand(7, 7), torch.rand(7, 7)).check()


def test_tensors_that_are_not_there_together_share_memory():
    def chain(x):
        for _ in range(50):
            x = (x + 1).abs() * 0.5
        return x

    made = Of(chain, torch.rand(1000)).check()
    assert 0 < made.bytes <= 4 * 4096


def test_a_place_is_not_given_away_before_its_tensor_is_gone():
    def early(x):
        first = x + 1
        others = [x * i for i in range(20)]
        total = sum(others)
        del others
        for _ in range(20):
            total = total.sin()
        return total + first

    Of(early, torch.rand(513)).check()


# What attacks are made of


def test_a_gradient_is_computed_again():
    weight = torch.randn(8, 3, 3, 3)

    def gradient(x):
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            hidden = F.max_pool2d(F.conv2d(leaf, weight, padding=1).relu(), 2)
            loss = F.cross_entropy(hidden.mean((2, 3)) + hidden.amax((2, 3)), torch.arange(4), reduction="none")
        return torch.autograd.grad(loss.sum(), leaf)[0]

    Of(gradient, torch.rand(4, 3, 8, 8)).check()


@needs_kernels
def test_kernels_are_run_again_on_tensors_of_the_step_and_of_others():
    matrix = Matrix(torch.randn(40, 24))

    def spikes(x, outside):
        rows = (x + 0.25).flatten(0, 1)
        current = matrix(rows).view(10, 2, 24)
        return functional.integrate_fire(current + outside, residual=(current > 0).float(), junction="add") + 0.0

    made = Of(spikes, torch.rand(10, 2, 40), torch.rand(10, 2, 24)).check()
    names = [arguments[0] for call, arguments in made._calls if call is library.call]
    assert names == ["matrix", "integrate_fire_forward"]


def test_operators_of_this_package_that_ask_for_values_are_run_as_they_are():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    out = []
    made = recorded(lambda: out.append(functional.phase_encode(images, T=4) + 1))
    images.copy_(255 - images)
    made.play()
    assert torch.equal(out[0], functional.phase_encode(images, T=4) + 1)


def test_what_changes_in_place_changes_again_in_every_replay():
    count, mean = torch.zeros((), dtype=torch.long), torch.zeros(3)

    def step():
        count.add_(1)
        mean.lerp_(torch.ones(3), 0.5)

    made = recorded(step)
    made.play()
    made.play()
    assert count == 3 and torch.equal(mean, torch.full((3,), 0.875))


def test_replays_count_as_changes_and_record_no_gradient():
    mean = torch.zeros(3)
    made = recorded(lambda: mean.add_(1))
    version = mean._version
    made.play()
    assert mean._version > version and mean.grad_fn is None


@needs_kernels
def test_what_other_threads_run_is_not_recorded():
    x = torch.rand(4, 8, 3)

    def elsewhere():
        thread = threading.Thread(target=lambda: functional.integrate_fire(x))
        thread.start()
        thread.join()

    assert not recorded(elsewhere)._calls
    assert recorded(lambda: functional.integrate_fire(x))._calls
    assert not library.is_heard()


# What cannot be


def changes_memory(x):
    other = x + 1
    other.resize_(3)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda x: x.sum().item(), "aten::_local_scalar_dense asks for a value"),
        (lambda x: bool((x > 0).all()), "aten::_local_scalar_dense asks for a value"),
        (lambda x: torch.rand(3) + x[0], "rand draws random numbers"),
        (lambda x: F.dropout(x), "draws random numbers"),
        (changes_memory, "resize_ changes where a tensor lies"),
        (lambda x: x.view(3, 2).t_().sum(0), "t_ changes where a tensor lies"),
    ],
)
def test_a_step_that_cannot_be_played_runs_and_is_refused(step, reason):
    x, done = torch.rand(2, 3), []

    def whole():
        step(x)
        done.append(1)

    made = tape.record(whole)
    assert reason in made.refused and done == [1] and made.bytes == 0


def test_a_step_that_fails_leaves_nobody_listening():
    with pytest.raises(ZeroDivisionError):
        tape.record(lambda: 1 / 0)
    assert not library.is_heard() and not torch._C._len_torch_dispatch_stack()


def test_what_is_done_aside_is_done_once_and_kept():
    made, x = {}, torch.ones(4)

    def step():
        if "total" not in made:
            with tape.aside():
                made["total"] = torch.zeros(4)
        made["total"].add_(x)

    played = tape.record(step)
    x.fill_(2.0)
    played.play()
    played.play()
    assert torch.equal(made["total"], torch.full((4,), 5.0))


@needs_kernels
def test_a_kernel_that_fails_in_a_replay_says_so():
    x = torch.rand(4, 8)
    made = recorded(lambda: functional.integrate_fire(x))
    ((call, (name, _, arguments)),) = made._calls
    made._calls[:] = [(call, (name, lambda arguments: 1, arguments))]
    with pytest.raises(RuntimeError, match="the CPU kernel integrate_fire_forward failed with status 1"):
        made.play()
