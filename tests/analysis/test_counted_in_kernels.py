"""Gradients counted in the engine's kernels against hooks on the plain network."""

import contextlib
import gc
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fastsnn
from fastsnn import attacks
from fastsnn.analysis import gradient_sparsity
from fastsnn.analysis.watching import watching
from fastsnn.attacks import recordings
from fastsnn.attacks.input_gradient import input_gradient
from fastsnn.ops import library, tape

from ..attacks.networks import settled
from ..spikingjelly_networks import batch

T, B = 4, 2


def warmed(net):
    """Return a network in eval mode whose norms have seen a few batches."""
    for seed in range(5):
        net(batch(T, B=8, seed=seed)[0])
    return net.eval()


def assert_close(found, expected):
    """The same rows, the same zeros; norms within float32's sums through a whole network."""
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    assert (found.samples, found.passes) == (expected.samples, expected.passes)
    for row, other in zip(found, expected, strict=True):
        assert row[3:7] == pytest.approx(other[3:7], abs=0, rel=0, nan_ok=True), row[:3]
        assert row[7:] == pytest.approx(other[7:], rel=1e-4, nan_ok=True), row[:3]


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_the_engine_counts_what_hooks_see_on_the_plain_network(pool):
    net, (x, y) = settled(pool=pool, width=4), batch(T, B)
    expected = gradient_sparsity(net, x, y, per_step=True)
    assert_close(gradient_sparsity(net, x, y, per_step=True, engine="auto"), expected)
    assert {row.kind for row in expected} >= {"convolution", "batch norm", "neuron", "junction", "linear"}


def test_the_engine_counts_over_the_steps_of_an_attack_and_batches_of_any_size():
    net, (x, y) = settled(width=4), batch(T, 3)
    attack = attacks.PGD(net, eps=0.1, alpha=0.05, steps=2, random_start=False)
    parts = list(zip(x.split(2, 1), y.split(2), strict=True))
    expected = gradient_sparsity(
        net, parts, attack=partial(attacks.pgd, net, eps=0.1, alpha=0.05, steps=2, random_start=False, engine=None)
    )
    assert_close(gradient_sparsity(net, parts, attack=attack, engine="auto"), expected)
    assert expected.samples == 6 and expected.passes == 4


def test_the_engine_counts_junctions_that_join_the_current_and_leaves_the_network_fused():
    torch.manual_seed(0)
    net, (x, y) = warmed(fastsnn.models.spiking_resnet18(width=4)), batch(T, B)
    assert_close(gradient_sparsity(net, x, y, engine="auto"), gradient_sparsity(net, x, y))
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(net.conv1), "forward", lambda *_: seen.append(1))
        gradient_sparsity(net, x, y, engine="auto")
    assert not seen, "no convolution ran as a module"


class Joined(nn.Module):
    """Two layers of 1x1 or 3x3, the second joined with the first, and a linear one."""

    def __init__(self, kind, kernel=1, planes=3):
        super().__init__()
        convs = (nn.Conv2d(inputs, planes, kernel, padding=kernel // 2, bias=False) for inputs in (3, planes))
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(planes) for _ in range(2))
        self.neurons = nn.ModuleList(fastsnn.nn.IFNode() for _ in range(2))
        self.junction, self.fc = fastsnn.nn.Junction(kind), nn.Linear(planes, 2)

    def forward(self, x):
        first, second = zip(self.convs, self.norms, self.neurons, strict=True)
        out = fastsnn.nn.spiking_layer(*first, x, spikes=False)
        out = fastsnn.nn.spiking_layer(*second, out, out, self.junction)
        return self.fc(out.mean((-1, -2))).mean(0)


@pytest.mark.parametrize("bn", ["frozen", "batch", "drift"])
@pytest.mark.parametrize("kind", ["add", "and", "iand", "and_not", "current"])
def test_the_engine_counts_every_junction_and_statistics_of_every_kind(kind, bn):
    torch.manual_seed(0)
    net = Joined(kind).eval()
    x, y = torch.rand(T, B, 3, 4, 4), torch.tensor([0, 1])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    expected = gradient_sparsity(net, x, y, bn=bn, per_step=True)
    net.load_state_dict(before)
    assert_close(gradient_sparsity(net, x, y, bn=bn, per_step=True, engine="auto"), expected)
    (row,) = (row for row in expected if row.layer == "junction" and row.t is None)
    assert (row.zeros_in > row.zeros_out) == (kind not in ("add", "current")), "what is multiplied with 0 stops"


def test_3x3_layers_behind_junctions_that_multiply_have_the_zeros_that_hooks_see():
    torch.manual_seed(0)
    net, (x, y) = warmed(fastsnn.models.sew_resnet18(width=4, cnf="IAND")), batch(T, B)
    expected = gradient_sparsity(net, x, y, per_step=True)
    assert_close(gradient_sparsity(net, x, y, per_step=True, engine="auto"), expected)
    assert any(0.1 < row.zeros_in < 0.9 for row in expected if row.layer == "layer2.1.conv1")


@pytest.mark.parametrize("kind", ["and", "iand", "and_not"])
def test_a_3x3_layer_has_the_zeros_that_hooks_see_where_few_neurons_pass_a_gradient_on(kind):
    torch.manual_seed(0)
    net = Joined(kind, kernel=3, planes=1).eval()
    with torch.no_grad():
        net.norms[0].bias.add_(1.2 if kind == "and_not" else 0.2)  # most neurons fire, or few
    x, y = torch.rand(T, B, 3, 9, 9), torch.tensor([0, 1])
    expected = gradient_sparsity(net, x, y, per_step=True)
    assert_close(gradient_sparsity(net, x, y, per_step=True, engine="auto"), expected)
    (row,) = (row for row in expected if row.layer == "convs.1" and row.t is None)
    assert 0.1 < row.zeros_in < row.zeros_out < 1


@pytest.mark.parametrize("name", ["vgg11", "wrn16_4"])
@pytest.mark.parametrize("surrogate", ["atan", "triangle"])
def test_what_the_engine_leaves_to_the_network_is_counted_too(name, surrogate):
    torch.manual_seed(0)
    net, (x, y) = warmed(fastsnn.models.BUILDERS[name](width=4, surrogate=surrogate)), batch(T, B)
    expected = gradient_sparsity(net, x, y, per_step=True)
    assert_close(gradient_sparsity(net, x, y, per_step=True, engine="auto"), expected)


@pytest.mark.parametrize("bn", ["batch", "drift"])
@pytest.mark.parametrize("build", [fastsnn.models.sew_resnet18, fastsnn.models.spiking_resnet18])
def test_the_engine_counts_with_the_statistics_of_the_batch(build, bn):
    torch.manual_seed(0)
    net, (x, y) = build(width=4).eval(), batch(T, B)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    expected = gradient_sparsity(net, x, y, bn=bn)
    net.load_state_dict(before)
    found = gradient_sparsity(net, x, y, bn=bn, engine="auto")
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    for row, other in zip(found, expected, strict=True):
        # a mean is taken off there, so that a zero is a matter of rounding
        assert row[3:7] == pytest.approx(other[3:7], abs=1e-3, nan_ok=True), row[:3]
        assert row[7:] == pytest.approx(other[7:], rel=1e-3, nan_ok=True), row[:3]


# Recorded steps: replays run no Python, and count all the same


@pytest.fixture
def plays(monkeypatch):
    """Return the list that grows with every replay of a step."""
    seen, play = [], tape.Tape.play
    monkeypatch.setattr(tape.Tape, "play", lambda self: (seen.append(self), play(self)))
    return seen


def counted(net, parts, graph="auto", **how):
    how = {"eps": 0.1, "alpha": 0.05, "steps": 4, "random_start": False, "graph": graph} | how
    attack = partial(attacks.pgd, net, **how)
    return gradient_sparsity(net, parts, attack=attack, engine="auto", underflow=False, per_step=True)


def in_parts(*samples):
    """Return batches of so many samples, different ones."""
    return [batch(T, B=number, seed=seed) for seed, number in enumerate(samples)]


@pytest.mark.parametrize("bn", ["frozen", "batch", "drift"])
@pytest.mark.parametrize("pool", ["max", "avg"])
def test_replayed_steps_are_counted_as_if_they_were_computed(plays, pool, bn):
    net, parts = settled(pool=pool, width=4), in_parts(3, 3, 3, 2, 3)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    expected = counted(net, parts, graph=None, bn=bn)
    assert not plays
    net.load_state_dict(state)
    found = counted(net, parts, bn=bn)
    assert [tuple(map(repr, row)) for row in found] == [tuple(map(repr, row)) for row in expected]
    assert (found.samples, found.passes) == (expected.samples, expected.passes) == (4 * 14, 4 * 5)
    assert len(plays) == 2 + 4 + 4 + 2 + 4, "the first batch of each size is recorded, others are replayed"


def test_attacks_that_are_counted_and_others_do_not_share_recordings(plays):
    net, parts = settled(width=4), in_parts(2, 2, 2, 2)
    attack = attacks.PGD(net, eps=0.1, alpha=0.05, steps=4, random_start=False)
    for x, y in parts:
        attack(x, y)
    expected = counted(net, parts, graph=None)
    plays.clear()
    for _ in range(2):
        assert list(counted(net, parts)) == list(expected)
    assert len({id(one) for one in plays}) == 2, "each call counts for itself"
    (recording,) = {one for one in recordings.of_networks[net].kept.values() if one.counting is None}
    attack(*parts[0])
    assert plays[-1] == recording.replay.__self__
    gc.collect()
    attack(*parts[0])
    assert all(one.counting is None for one in recordings.of_networks[net].kept.values()), "who counted has gone"


def test_who_counted_is_forgotten(plays):
    net, parts = settled(width=4), in_parts(2)
    for _ in range(3):
        counted(net, parts)
    gc.collect()
    counted(net, parts)
    assert len(recordings.of_networks[net].kept) == 1 and not recordings.of_networks[net].met


@pytest.mark.parametrize("engine", [None, "auto"])
@pytest.mark.parametrize("underflow", [True, False])
def test_it_counts_inside_inference_mode_as_well(engine, underflow):
    net, (x, y) = settled(width=4), batch(T, B)
    expected = gradient_sparsity(net, x, y, engine=engine, underflow=underflow)
    with torch.inference_mode():
        assert list(gradient_sparsity(net, x, y, engine=engine, underflow=underflow)) == list(expected)


def test_others_who_watch_a_layer_or_all_see_every_step(plays):
    net, parts, seen = settled(width=4), in_parts(2, 2, 2), []
    for register in (net.fc.register_forward_hook, nn.modules.module.register_module_forward_pre_hook):
        handle = register(lambda *_: seen.append(1))
        seen.clear()
        with contextlib.suppress(ValueError):  # layers that are watched are not counted in kernels
            counted(net, parts)
        handle.remove()
        assert len(seen) >= 3 * 4 and not plays


def test_passes_that_look_for_underflow_are_not_replayed(plays):
    net, parts = settled(width=4), in_parts(2, 2, 2)
    attack = attacks.PGD(net, eps=0.1, alpha=0.05, steps=4, random_start=False)
    found = gradient_sparsity(net, parts, attack=attack, engine="auto")
    assert not plays and found.passes == 3 * 4


@pytest.fixture
def kernels(monkeypatch):
    """The names of the kernels that run."""
    ran, run = [], library.run
    monkeypatch.setattr(library, "run", lambda kernel, arguments: ran.append(kernel) or run(kernel, arguments))
    return ran


@pytest.mark.skipif(bool(library.unavailable()), reason="needs the C++ kernels")
def test_a_gradient_that_two_layers_see_is_counted_once(kernels):
    """Eight of 20 layers' inputs in SEW-ResNet18 are counted by the layer in front, and the pool's; x is the stem's."""
    net, (x, y) = settled(width=4), batch(T, B)
    gradient_sparsity(net, x, y, engine="auto", underflow=False)
    behind_pools, around_fc, logits = 2, 3, 1  # the global pool's input is a block's output, and has other shapes
    assert kernels.count("tally") == 20 - 8 + behind_pools + around_fc + logits


class Twice(nn.Module):
    """The same layer two times, with another use of its output, and a change of the gradient in between."""

    def __init__(self, change=None):
        super().__init__()
        self.conv, self.norm, self.neuron = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), fastsnn.nn.IFNode()
        self.fc, self.change = nn.Linear(3, 10), change

    def forward(self, x_seq):
        once = fastsnn.nn.spiking_layer(self.conv, self.norm, self.neuron, x_seq)
        if self.change is not None and once.requires_grad:
            once.register_hook(self.change)
        out = fastsnn.nn.spiking_layer(self.conv, self.norm, self.neuron, once)
        return self.fc((out + once).mean((3, 4))).mean(0)


@pytest.mark.parametrize("change", [None, torch.neg, lambda grad: grad * (torch.arange(4) > 1), torch.zeros_like])
def test_a_layer_that_is_called_twice_and_gradients_that_change_on_their_way(change):
    torch.manual_seed(0)
    net, (x, y) = warmed(Twice(change)), batch(T, B)
    found = gradient_sparsity(net, x[..., :4, :4], y, per_step=True, engine="auto", underflow=False)
    assert_close(found, gradient_sparsity(net, x[..., :4, :4], y, per_step=True, underflow=False))


class Halved(nn.Module):
    """Two layers, the second with half of the time steps, and a hook between them."""

    def __init__(self, change=None):
        super().__init__()
        self.change = change
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.neurons = nn.ModuleList(fastsnn.nn.IFNode() for _ in range(2))
        self.fc = nn.Linear(3, 10)

    def forward(self, x_seq):
        out = fastsnn.nn.spiking_layer(self.convs[0], None, self.neurons[0], x_seq)
        out = out.unflatten(0, (-1, 2)).mean(1)
        if self.change is not None and out.requires_grad:
            out.register_hook(self.change)
        out = fastsnn.nn.spiking_layer(self.convs[1], None, self.neurons[1], out, spikes=False)
        return self.fc(out.mean((3, 4))).mean(0)


def test_a_layer_with_other_time_steps_than_the_network_is_counted_with_its_own():
    torch.manual_seed(0)
    net, (x, y) = Halved().eval(), batch(T, B)
    table = {row.layer: row for row in gradient_sparsity(net, x, y, engine="auto", underflow=False)}
    with input_gradient(net, engine=None) as gradient:
        seen = {}
        net.convs[1].register_full_backward_hook(lambda module, at_input, _: seen.update(grad=at_input[0]))
        gradient(x, y)
    rows = seen["grad"].unflatten(0, (-1, B)).transpose(0, 1).flatten(1).double()  # [B, ...], of T / 2 steps
    found = table["convs.1"]
    expected = (
        (rows == 0).double().mean(),
        rows.abs().sum(1).mean(),
        rows.norm(dim=1).mean(),
        rows.abs().amax(1).mean(),
    )
    for value, other in zip((found.zeros_in, found.l1_in, found.l2_in, found.linf_in), expected, strict=True):
        assert value == pytest.approx(other.item(), rel=1e-4)


def test_a_gradient_that_changes_in_place_is_refused():
    net, (x, y) = Halved(lambda grad: grad.mul_(2)).eval(), batch(T, B)
    with pytest.raises(ValueError, match=r"changes a gradient of shape .* in place"):
        gradient_sparsity(net, x, y, engine="auto", underflow=False)


class Mixed(nn.Module):
    """A layer with two inputs, of which one knows no time."""

    class Add(nn.Module):
        def forward(self, one, other):
            return one * other

    def __init__(self):
        super().__init__()
        self.add, self.fc, self.each = self.Add(), nn.Linear(6, 10), nn.Linear(6, 6)

    def forward(self, x_seq):
        x_seq = x_seq.flatten(2)[..., :6]
        return self.fc(self.add(x_seq, self.each(x_seq.mean(0)))).mean(0)


def test_inputs_of_a_layer_that_know_time_and_do_not_are_refused():
    with pytest.raises(ValueError, match=r"has a layer with gradients of .* time steps and samples at its inputs"):
        gradient_sparsity(Mixed(), *batch(T, B), underflow=False)


def test_a_network_that_is_called_again_in_the_middle_of_a_pass_is_counted_whole():
    net, (x, y) = settled(width=4), batch(T, B)

    def attack(x, y):
        logits = checkpoint(net, x.clone().requires_grad_(), use_reentrant=False)
        nn.functional.cross_entropy(logits, y, reduction="sum").backward()

    net.requires_grad_(False)
    found = gradient_sparsity(net, x, y, attack=attack, underflow=False)
    whole = found[0]
    assert not any(math.isnan(value) for value in (whole.zeros_out, whole.l1_out)) and found.passes >= 1


@pytest.mark.parametrize("engine", ["auto", None])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_default_type_of_torch_changes_no_average(engine, dtype):
    net, (x, y) = settled(width=4), batch(T, 5)
    parts = [(x, y)] * 53  # 265 samples: bfloat16 has 264 and 266
    expected = gradient_sparsity(net, parts, engine=engine, underflow=False)
    with watching(net, underflow=False, in_kernels=engine is not None) as watched:
        for one, labels in parts:
            with input_gradient(net, engine=engine) as gradient:
                gradient(one, labels)
    torch.set_default_dtype(dtype)
    try:
        (seen,) = watched.read()
    finally:
        torch.set_default_dtype(torch.float32)
    assert seen.columns[0, -1, 2].item() == expected[0].l1_in


@pytest.mark.parametrize("engine", ["auto", None])
def test_a_pass_that_fails_is_not_counted_in_the_next(engine):
    torch.manual_seed(0)
    asked = []

    def fails_at_first(grad):
        asked.append(grad)
        return None if len(asked) > 1 else 1 / 0

    net, (x, y) = warmed(Twice(fails_at_first)), batch(T, B)

    def attack(x, y):
        if not asked:
            with pytest.raises(ZeroDivisionError):
                attacks.fgsm(net, x, y, eps=0.1, engine=engine)
        attacks.fgsm(net, x, y, eps=0.1, engine=engine)

    how = {"per_step": True, "engine": engine, "underflow": False}
    found = gradient_sparsity(net, x, y, attack=attack, **how)
    assert len(asked) == 2 and found == gradient_sparsity(net, x, y, attack=attack, **how)


def test_underflow_is_told_in_kernels_too():
    net, (x, y) = settled(width=4), batch(T, B)
    with torch.no_grad():
        net.fc.weight.mul_(1e-42)
    expected, found = gradient_sparsity(net, x, y), gradient_sparsity(net, x, y, engine="auto")
    (row,) = (row for row in found if row.layer == "layer4.1.conv2")
    (other,) = (row for row in expected if row.layer == "layer4.1.conv2")
    assert row.zeros_out > row.structural_out == other.structural_out


def test_what_cannot_be_counted_in_kernels_is_refused():
    net, (x, y) = settled(width=4), batch(T, B)
    with pytest.raises(ValueError, match=r"layers \(conv1, layer1.0.conv1, .*\.\.\.\) that no engine computed"):
        gradient_sparsity(net, x, y, engine="auto", attack=partial(attacks.fgsm, net, eps=0.1, engine=None))
    with pytest.raises(ValueError, match="engine is 'best'"):
        gradient_sparsity(net, x, y, engine="best")
