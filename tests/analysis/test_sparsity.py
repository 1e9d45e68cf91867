import csv
import gc
import io
import math
import weakref
from functools import partial

import pytest
import torch
from spikingjelly.activation_based.model import sew_resnet
from torch import nn
from torch.nn.functional import cross_entropy

import fastsnn
from fastsnn import attacks
from fastsnn.analysis import gradient_sparsity

from ..attacks.networks import settled
from ..spikingjelly_networks import batch, pair, reset

T, B = 4, 2


def plain_hooks(net, backward):
    """Return the gradients at output and input of every layer of SpikingJelly's network that `backward()` passes."""
    seen = {}

    def hook(name):
        return lambda module, grad_input, grad_output: seen.setdefault(name, []).append((grad_input[0], grad_output[0]))

    def is_leaf(module):
        return hasattr(module, "surrogate_function") or not list(module.children())

    leaves = [(name, m) for name, m in net.named_modules() if is_leaf(m) and "surrogate_function" not in name]
    handles = [module.register_full_backward_hook(hook(name)) for name, module in leaves]
    try:
        backward()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def loss_gradient(net, x, y):
    reset(net)
    x = x.clone().requires_grad_()
    return torch.autograd.grad(cross_entropy(net(x).mean(0), y, reduction="sum"), x)[0]


def frozen(net):
    return net.eval().requires_grad_(False)


def share_of_zeros(gradients):
    return sum((g == 0).sum().item() for g in gradients) / sum(g.numel() for g in gradients)


def mean_norm(gradients, order, steps=slice(None)):
    samples = [g.reshape(T, B, -1)[steps].transpose(0, 1).flatten(1).double() for g in gradients]
    return torch.cat([torch.linalg.vector_norm(s, order, 1) for s in samples]).mean().item()


def assert_equal(rows, seen):
    """The rows of all layers but junctions are those of plain hooks."""
    ours = {row.layer: row for row in rows if row.kind not in ("junction", "network")}
    assert ours.keys() == seen.keys()
    for name, row in ours.items():
        at_input, at_output = zip(*seen[name], strict=True)
        assert (row.zeros_in, row.zeros_out) == (share_of_zeros(at_input), share_of_zeros(at_output)), name
        for order, norm in ((1, "l1"), (2, "l2"), (math.inf, "linf")):
            assert getattr(row, f"{norm}_in") == pytest.approx(mean_norm(at_input, order), rel=1e-12), name
            assert getattr(row, f"{norm}_out") == pytest.approx(mean_norm(at_output, order), rel=1e-12), name


@pytest.mark.parametrize(("depth", "pool"), [(18, "max"), (18, "avg"), (50, "max")])
def test_zeros_and_norms_of_every_layer_equal_plain_hooks_on_spikingjelly(depth, pool):
    ours, theirs = pair(depth, pool)
    x, y = batch(T, B)
    seen = plain_hooks(frozen(theirs), lambda: loss_gradient(theirs, x, y))
    rows = gradient_sparsity(ours, x, y, precision="reference")
    assert_equal(rows, seen)
    kinds = {row.layer: row for row in rows}
    assert (kinds["maxpool"].zeros_in > 0.7) == (pool == "max")
    assert kinds["layer2.0.downsample.0"].zeros_in >= 0.75
    assert (rows.samples, rows.passes) == (B, 1)


def test_the_default_precision_sees_the_same_zeros():
    ours, theirs = pair(18)
    x, y = batch(T, B)
    seen = plain_hooks(frozen(theirs), lambda: loss_gradient(theirs, x, y))
    for row in gradient_sparsity(ours, x, y):
        if row.layer in seen:
            assert (row.zeros_in, row.zeros_out) == tuple(share_of_zeros([g]) for g in seen[row.layer][0])


@pytest.mark.parametrize("attack", [partial(partial, attacks.pgd), attacks.PGD], ids=["partial", "PGD"])
def test_over_the_steps_of_an_attack_it_averages_what_plain_hooks_see_on_spikingjelly(attack):
    ours, theirs = pair(18)
    x, y = batch(T, B)
    eps, alpha, steps = 6 / 255, 0.01, 2

    def loop():
        adv = x
        for _ in range(steps):
            adv = adv + alpha * loss_gradient(theirs, adv, y).sign()
            adv = (x + (adv - x).clamp(-eps, eps)).clamp(0, 1)

    seen = plain_hooks(frozen(theirs), loop)
    assert all(len(passes) == steps for passes in seen.values())
    attack = attack(ours, eps=eps, alpha=alpha, steps=steps, random_start=False, precision="reference")
    rows = gradient_sparsity(ours, x, y, attack=attack)
    assert_equal(rows, seen)
    assert (rows.samples, rows.passes) == (steps * B, steps)


@pytest.mark.parametrize(("depth", "cnf"), [(18, "ADD"), (18, "AND"), (18, "IAND"), (50, "IAND")])
def test_junctions_equal_spikingjellys_sew_function(depth, cnf, monkeypatch):
    ours, theirs = pair(depth, cnf=cnf)
    x, y = batch(T, B)
    inputs, outputs, combine = [], [], sew_resnet.sew_function

    def watched(a, b, cnf):
        a, b, here = a.view_as(a), b.view_as(b), len(outputs)
        inputs.append([])
        outputs.append(None)
        a.register_hook(inputs[here].append), b.register_hook(inputs[here].append)
        out = combine(a, b, cnf)
        out.register_hook(lambda grad: outputs.__setitem__(here, grad))
        return out

    monkeypatch.setattr(sew_resnet, "sew_function", watched)
    loss_gradient(frozen(theirs), x, y)
    rows = [row for row in gradient_sparsity(ours, x, y, precision="reference") if row.kind == "junction"]
    assert len(rows) == len(outputs) == {18: 8, 50: 16}[depth]
    for row, at_input, at_output in zip(rows, inputs, outputs, strict=True):
        assert row.zeros_in == share_of_zeros(at_input) and row.zeros_out == share_of_zeros([at_output])
        squares = [g.reshape(T, B, -1).double().square().sum((0, 2)) for g in at_input]
        assert row.l2_in == pytest.approx((squares[0] + squares[1]).sqrt().mean().item(), rel=1e-12)
    if cnf == "AND":
        assert rows[-1].zeros_in > rows[-1].zeros_out == 0, "a spike that is not there stops its partner's gradient"


def test_every_time_step_has_rows_of_its_own():
    ours, theirs = pair(18)
    x, y = batch(T, B)
    seen = plain_hooks(frozen(theirs), lambda: loss_gradient(theirs, x, y))
    rows = gradient_sparsity(ours, x, y, precision="reference", per_step=True)
    assert [row.t for row in rows[: T + 1]] == [None, *range(T)]
    for row in (row for row in rows if row.t is not None and row.layer in seen):
        at_input, at_output = (g.reshape(T, B, -1) for g in seen[row.layer][0])
        assert (row.zeros_in, row.zeros_out) == (
            share_of_zeros(at_input[row.t][None]),
            share_of_zeros(at_output[row.t]),
        )
        assert row.l2_in == pytest.approx(mean_norm([at_input], 2, slice(row.t, row.t + 1)), rel=1e-12)
    assert_equal([row for row in rows if row.t is None], seen)


def test_a_stream_of_batches_gives_what_one_batch_gives_and_is_read_one_by_one():
    net, (x, y), order = settled(), batch(T, 5), []

    def stream():
        for some in (slice(0, 2), slice(2, 3), slice(3, 5)):
            order.append("read")
            yield x[:, some], y[some]

    whole = gradient_sparsity(net, x, y)
    rows = gradient_sparsity(net, stream(), on_batch=order.append)
    assert order == ["read", 2, "read", 1, "read", 2] and (rows.samples, rows.passes) == (5, 3)
    for ours, expected in zip(rows, whole, strict=True):
        assert ours[:3] == expected[:3]
        assert ours[3:] == pytest.approx(expected[3:], rel=1e-4, abs=1e-4, nan_ok=True)


class Seen(nn.Module):
    """Remembers, without holding them, what goes in and out."""

    def __init__(self, net):
        super().__init__()
        self.net, self.tensors = net, []

    def forward(self, x):
        logits = self.net(x)
        self.tensors += [weakref.ref(x), weakref.ref(logits)]
        return logits


@pytest.mark.parametrize("steps", [None, 2])
def test_no_batch_is_kept_alive(steps):
    net = Seen(settled(width=4))
    attack = attacks.PGD(net, eps=0.1, alpha=0.1, steps=steps) if steps else None
    gc.collect()
    gc.disable()
    try:
        gradient_sparsity(net, (batch(T, B, seed=seed) for seed in range(3)), attack=attack)
        assert len(net.tensors) == 2 * 3 * (steps or 1) and not any(ref() is not None for ref in net.tensors)
    finally:
        gc.enable()


def test_images_are_watched_through_the_encoder():
    net = fastsnn.Classifier(settled(), fastsnn.nn.PhaseEncoder(T=T))
    images, y = torch.rand(3, 3, 32, 32), torch.tensor([0, 1, 2])
    rows = {(row.layer, row.t): row for row in gradient_sparsity(net, images, y, per_step=True)}
    assert rows["encoder", None].kind == "encoder" and rows["net.sn1", 3].kind == "neuron"
    assert math.isnan(rows["encoder", 0].l2_in) and rows["encoder", None].l2_in == rows["network", None].l2_in > 0
    inside = gradient_sparsity(net.net, net.encode(images), y)
    assert rows["net.conv1", None][3:] == pytest.approx(inside[1][3:], rel=1e-6)


def test_another_librarys_attack_can_be_watched():
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed (it pins an old requests)")
    clf = fastsnn.Classifier(settled(width=4), fastsnn.nn.PhaseEncoder(T=T)).eval()
    images, y = torch.randint(0, 256, (4, 3, 32, 32)) / 255, torch.tensor([0, 1, 2, 3])
    how = {"eps": 8 / 255, "alpha": 2 / 255, "steps": 3, "random_start": False}
    theirs = gradient_sparsity(clf, images, y, attack=torchattacks.PGD(clf, **how))
    ours = gradient_sparsity(clf, images, y, attack=attacks.PGD(clf, **how))
    for row, other in zip(theirs, ours, strict=True):
        assert row[:5] == other[:5] and 4 * row.l2_out == pytest.approx(other.l2_out, nan_ok=True), "a mean over 4"


class SpikingJellyAsClassifier(nn.Module):
    """SpikingJelly's own network with a reset in front and the mean over time behind."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        reset(self.net)
        return self.net(x).mean(0)


def test_spikingjellys_own_networks_can_be_watched():
    ours, theirs = pair(18)
    x, y = batch(T, B)
    expected = {row.layer: row[1:5] for row in gradient_sparsity(ours, x, y, precision="reference")}
    rows = {
        row.layer.removeprefix("net."): row[1:5] for row in gradient_sparsity(SpikingJellyAsClassifier(theirs), x, y)
    }
    assert rows == {layer: row for layer, row in expected.items() if row[0] != "junction"}


# Underflow


def chain(*diagonals):
    layers = [nn.Linear(3, 3, bias=False) for _ in diagonals]
    for layer, diagonal in zip(layers, diagonals, strict=True):
        layer.weight.data = torch.diag(torch.tensor(diagonal))
    return nn.Sequential(nn.Flatten(), *layers)


def test_underflow_is_told_from_zeros_of_the_structure():
    net = chain([1e-30, 0.0, 1.0], [1e-30, 1.0, 1.0])  # the gradient at x: 1e-60, 0 and 1 times that at the logits
    rows = {row.layer: row for row in gradient_sparsity(net, torch.zeros(2, 3, 1, 1), torch.tensor([0, 1]))}
    assert rows["1"].zeros_in == rows["network"].zeros_in == 2 / 3
    assert rows["1"].structural_in == rows["network"].structural_in == 1 / 3
    assert rows["2"].zeros_in == rows["2"].structural_in == 0
    assert rows["network"].zeros_out == rows["network"].structural_out == 0


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_saturated_softmax_is_underflow_not_structure(reduction):
    net, x = chain([200.0, 1.0, 1.0]), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).view(2, 3, 1, 1)
    y = torch.tensor([0, 2])

    def attack(x, y):
        x = x.clone().requires_grad_()
        torch.autograd.grad(cross_entropy(net(x), y, reduction=reduction), x)

    network = gradient_sparsity(net, x, y, attack=attack)[0]
    assert network.zeros_in == network.zeros_out == 0.5, "the first sample is classified all too well"
    assert network.structural_in == network.structural_out == 0


def test_the_zeros_of_another_loss_stay_what_they_are():
    net, x, y = chain([1.0, 1.0, 1.0]), torch.rand(2, 3, 1, 1), torch.tensor([0, 2])

    def attack(x, y):
        x = x.clone().requires_grad_()
        logits = net(x)
        torch.autograd.grad((logits[:, 0] - logits[:, 1]).sum(), x)

    network = gradient_sparsity(net, x, y, attack=attack)[0]
    assert network.zeros_in == network.structural_in == 1 / 3


def test_trained_like_networks_have_structural_zeros_alone_and_norms_do_not_depend_on_telling():
    net, (x, y) = settled(), batch(T, 4)
    told, untold = gradient_sparsity(net, x, y), gradient_sparsity(net, x, y, underflow=False)
    for row, other in zip(told, untold, strict=True):
        assert row.structural_in == row.zeros_in and row.structural_out == row.zeros_out
        assert math.isnan(other.structural_in) and math.isnan(other.structural_out)
        assert (row[3:5], row[7:]) == (other[3:5], other[7:])


def test_gradients_that_leave_the_range_of_float32_are_refused():
    net = chain([1e30, 1.0, 1.0], [1e-30, 1.0, 1.0])
    gradient_sparsity(net, torch.zeros(1, 3, 1, 1), torch.tensor([0]))
    net = chain([1e-15, 1.0, 1.0], [1e25, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"more than 2\^64"):
        gradient_sparsity(net, torch.zeros(1, 3, 1, 1), torch.tensor([0]))
    gradient_sparsity(net, torch.zeros(1, 3, 1, 1), torch.tensor([0]), underflow=False)


# The table


def test_kinds_are_plain_means_over_their_layers():
    rows = gradient_sparsity(settled(), *batch(T, B))
    kinds = {row.kind: row for row in rows.by_kind()}
    for kind, count in (("convolution", 20), ("batch norm", 20), ("neuron", 20), ("junction", 8), ("max pool", 1)):
        some = [row for row in rows if row.kind == kind]
        assert len(some) == count and kinds[kind].layer == f"{count} layer{'s'[: count > 1]}"
        assert kinds[kind].zeros_in == pytest.approx(sum(row.zeros_in for row in some) / count)
        assert kinds[kind].l2_out == pytest.approx(sum(row.l2_out for row in some) / count)
    pool = kinds["max pool"]
    assert pool.zeros == (pool.zeros_in + pool.zeros_out) / 2


def test_csv_holds_every_number_and_text_is_a_table():
    rows = gradient_sparsity(settled(), *batch(T, B), per_step=True)
    lines = list(csv.DictReader(io.StringIO(rows.csv())))
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert line["layer"] == row.layer and line["t"] == ("" if row.t is None else str(row.t))
        assert line["zeros_in"] == ("" if math.isnan(row.zeros_in) else str(row.zeros_in))
    text = str(rows).splitlines()
    assert len(text) == 1 + len(rows) + 1
    pool = next(row for row in rows if row.kind == "max pool")
    assert any(
        line.split()[:4] == ["maxpool", "max", "pool", "all"] and f"{100 * pool.zeros_in:.2f}" in line for line in text
    )


# The network, and bad input


def test_the_network_is_left_as_it_was_found_also_after_an_exception():
    net = settled().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x, y = batch(T, B)
    gradient_sparsity(net, x, y, bn="batch")

    def failing(x, y):
        attacks.fgsm(net, x, y, eps=0.1)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        gradient_sparsity(net, x, y, attack=failing)
    assert net.training and all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(fastsnn.nn.is_watched(module) for module in net.modules())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"network": lambda x: x}, TypeError, "network is of type function, expected a torch.nn.Module"),
        ({"y": None}, ValueError, "y is None"),
        ({"x": []}, ValueError, "y is given with an iterable"),
        ({"x": [], "y": None}, ValueError, "x holds no batch"),
        ({"x": torch.rand(T, 0, 3, 32, 32), "y": torch.zeros(0, dtype=torch.int64)}, ValueError, "no sample"),
        ({"x": torch.rand(T, B, 3, 32, 32) + 1}, ValueError, "expected numbers in"),
        ({"precision": "fast"}, ValueError, "precision is 'fast'"),
        ({"bn": "frozn"}, ValueError, "Did you mean 'frozen'"),
        ({"attack": lambda x, y: x}, ValueError, "no backward pass through network"),
        ({"attack": "pgd"}, TypeError, "attack is 'pgd', expected a function"),
        ({"attack": lambda x, y: x, "x": torch.full((T, B, 3, 32, 32), torch.nan)}, ValueError, "x has inf or NaN"),
        ({"attack": lambda x, y: x, "y": torch.tensor([-1, 0])}, ValueError, "y has the label -1"),
    ],
)
def test_bad_input_is_refused(change, error, message):
    x, y = batch(T, B)
    arguments = {"network": settled(), "x": x, "y": y} | change
    with pytest.raises(error, match=message):
        gradient_sparsity(arguments.pop("network"), arguments.pop("x"), arguments.pop("y"), **arguments)


def test_batches_of_other_time_steps_are_refused():
    with pytest.raises(ValueError, match="4 and of 3 time steps"):
        gradient_sparsity(settled(), [batch(4, 2), batch(3, 2)])


def test_as_many_samples_as_steps_and_classes_are_not_taken_for_steps():
    torch.manual_seed(0)
    net = fastsnn.models.sew_resnet18(width=4, num_classes=3)
    x, y = torch.rand(3, 3, 3, 16, 16), torch.arange(3)
    whole = gradient_sparsity(net, x, y)
    apart = gradient_sparsity(net, [(x[:, i : i + 1], y[i : i + 1]) for i in range(3)])
    for one, other in zip(whole, apart, strict=True):
        assert one.l2_out == pytest.approx(other.l2_out, rel=1e-4), one.layer


def test_underflow_of_a_softmax_is_told_though_the_whole_batch_is_saturated():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.diag(torch.tensor([200.0, 1.0, 1.0])))
    row = gradient_sparsity(net, torch.tensor([[[[1.0, 0.5, 0.5]]]]), torch.tensor([0]))[-1]
    assert row.zeros_out == 1.0 and row.structural_out < 1.0


def test_what_knows_no_time_has_nothing_at_any_step():
    net, (x, y) = settled(width=4), batch(T, B)
    rows = [row for row in gradient_sparsity(net, x, y, per_step=True) if row.layer == "network"]
    assert not math.isnan(rows[0].zeros_out) and all(math.isnan(row.zeros_out) for row in rows[1:])
