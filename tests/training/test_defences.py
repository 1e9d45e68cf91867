import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastsnn import attacks, data, models
from fastsnn.models.wide_resnet import Mix
from fastsnn.nn import PhaseEncoder, learned_neurons
from fastsnn.training import HIRE, SNNRAT, SparseGradient, Trainer, defence_of, described, neurons_for, train
from fastsnn.training.learner import Learner
from fastsnn.training.snn_rat import onto_simplex, regularise

NAMES = ("snn_rat", "mixed_rat", "hire", "sparse_gradient")


@pytest.fixture(scope="module")
def digits():
    some = data.load("digits", "train")
    return some.images[:32], some.labels[:32]


@pytest.fixture
def batch(digits):
    return PhaseEncoder(4)(digits[0][:8]), digits[1][:8]


def network(builder=models.sew_resnet18):
    torch.manual_seed(0)
    return builder(pool="avg", width=4, surrogate="atan", alpha=2).train()


def learner(net, highest_label=9):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    return Learner(net, net, optimizer, torch.Generator().manual_seed(1), highest_label)


def weights(net):
    return [parameter.detach().clone() for parameter in net.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# the weight regulariser


@pytest.mark.parametrize("layer", [nn.Linear(20, 8), nn.Conv2d(3, 8, 3)], ids=["linear", "convolution"])
def test_the_regulariser_moves_singular_values_by_its_equation_and_to_1(layer):
    flat = layer.weight.data.flatten(1)
    flat /= torch.linalg.matrix_norm(flat, 2) / 1.3  # some below 1, the largest above
    u, before, v = torch.linalg.svd(flat, full_matrices=False)
    regularise(layer, 0.1, torch.Generator())
    expected = (1 + 0.1) * before - 0.1 * before**3
    torch.testing.assert_close(layer.weight.detach().flatten(1), u @ expected.diag() @ v, rtol=0, atol=1e-5)
    for _ in range(200):
        regularise(layer, 0.1, torch.Generator())
    torch.testing.assert_close(torch.linalg.svdvals(layer.weight.detach().flatten(1)), torch.ones(8))


def test_of_a_large_linear_layer_a_random_30_percent_of_rows_move():
    layer = nn.Linear(6, 200)
    before, draws = layer.weight.detach().clone(), torch.Generator().manual_seed(3)
    regularise(layer, 0.1, draws)
    chosen = torch.randperm(200, generator=torch.Generator().manual_seed(3))[:60]
    assert (layer.weight != before).any(1).nonzero().flatten().tolist() == sorted(chosen.tolist())
    rows = before[chosen]
    torch.testing.assert_close(layer.weight.detach()[chosen], 1.1 * rows - 0.1 * rows @ rows.T @ rows)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0.5, 0.5], [0.5, 0.5]),
        ([0.8, 0.8], [0.5, 0.5]),
        ([0.9, 0.3], [0.8, 0.2]),
        ([2.0, 0.1], [1.0, 0.0]),
        ([-3.0, 0.2], [0.0, 1.0]),
    ],
)
def test_the_weights_of_convex_combinations_go_to_the_nearest_point_of_the_simplex(given, expected):
    mix = Mix()
    mix.comb.data = torch.tensor(given)
    onto_simplex(mix)
    torch.testing.assert_close(mix.comb.detach(), torch.tensor(expected))
    on_it = torch.rand(500, 1)
    on_it = torch.cat([on_it, 1 - on_it], 1)
    distances = (on_it - torch.tensor(given)).norm(dim=1)
    assert (mix.comb.detach() - torch.tensor(given)).norm() <= distances.min() + 1e-6


# SNN-RAT


def test_snn_rat_is_a_step_at_fgsm_then_the_regulariser_then_the_simplex(digits):
    net, twin = network(models.wrn16_4), network(models.wrn16_4)
    x, y = PhaseEncoder(4)(digits[0][:8]), digits[1][:8]
    loss = SNNRAT(eps=2, beta=0.01)(learner(net), x, y)
    adv = attacks.fgsm(twin, x, y, eps=2 / 255)
    assert not torch.equal(adv, x)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    expected = F.cross_entropy(twin(adv), y)
    expected.backward()
    optimizer.step()
    moved = [module.comb.detach().sum() for module in twin.modules() if isinstance(module, Mix)]
    assert any(abs(total - 1) > 1e-5 for total in moved), "the step left the simplex"
    regularise(twin, 0.01, torch.Generator().manual_seed(1))
    onto_simplex(twin)
    assert same(weights(net), weights(twin)) and torch.equal(loss, expected)
    for module in net.modules():
        if isinstance(module, Mix):
            assert module.comb.sum().item() == pytest.approx(1, abs=1e-6) and (module.comb >= 0).all()


def test_the_mixed_form_crafts_by_fgsm_and_by_r_fgsm_half_the_time_each(batch):
    x, y = batch
    net = network()
    one, plain = learner(net), attacks.fgsm(net, x, y, eps=2 / 255)
    crafted = [SNNRAT(mixed=True).crafted(one, x, y) for _ in range(24)]
    by_fgsm = sum(torch.equal(adv, plain) for adv in crafted)
    assert 4 <= by_fgsm <= 20
    for adv in crafted:
        assert (adv - x).abs().max() <= 2 / 255 + 1e-7 and adv.min() >= 0 and adv.max() <= 1


def test_r_fgsm_starts_at_half_the_budget_in_a_random_direction(batch, monkeypatch):
    x, y = batch
    seen = []
    monkeypatch.setattr(attacks, "fgsm", lambda net, x, y, eps: seen.append((x, eps)) or x)
    one = learner(network())
    for _ in range(8):
        SNNRAT(eps=4, mixed=True).crafted(one, x, y)
    half = [start for start, eps in seen if eps == 2 / 255]
    assert 0 < len(half) < 8
    inside = (x > 0) & (x < 1) | True
    moved = (half[0] - x)[inside]
    assert set(torch.round(moved * 255).unique().tolist()) == {-2, 0, 2}  # 0 where the noise left [0, 1]


# HIRE-SNN


def test_hire_takes_a_step_for_each_period_on_noise_from_the_period_before(batch):
    x, y = batch
    net, twin = network(), network()
    loss = HIRE(periods=2, eps=8, alpha=0.01)(learner(net), x, y)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    noise, losses = torch.zeros_like(x[0]), []
    for period in (x[:2], x[2:]):
        noise = noise.detach().requires_grad_()
        losses.append(F.cross_entropy(twin((period + noise).clamp(0, 1)), y))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
        noise = (noise + 0.01 * noise.grad.sign()).clamp(-8 / 255, 8 / 255)
    assert same(weights(net), weights(twin))
    torch.testing.assert_close(loss, torch.stack(losses).detach().mean())


def test_the_noise_climbs_and_stays_within_its_bound():
    hire, noise = HIRE(eps=8, alpha=0.01), torch.zeros(3)
    for _ in range(5):
        noise = hire.next_noise(noise, torch.tensor([2.0, -0.1, 0.0]))
    torch.testing.assert_close(noise, torch.tensor([8 / 255, -8 / 255, 0]))


def test_hire_learns_thresholds_and_leaks_within_their_ranges_and_without_a_penalty(batch):
    x, y = batch
    net = neurons_for(network(), "hire:learned=1")
    how = {"epochs": 1, "batch_size": 8, "lr": 0.2, "optimizer": "sgd", "weight_decay": 0.1, "seed": 0}
    trainer = Trainer(net, torch.zeros(8, 3, 32, 32, dtype=torch.uint8), y, defence=HIRE(learned=1), **how)
    HIRE(learned=1)(trainer.learner, x, y)
    nodes = learned_neurons(net)
    apart = trainer.optimizer.param_groups[1]
    assert apart["weight_decay"] == 0 and len(apart["params"]) == 2 * len(nodes)
    assert all(0.01 <= node.leak <= 1 and node.threshold >= 0.01 for node in nodes)
    assert len({node.leak.item() for node in nodes}) > 2 and len({node.threshold.item() for node in nodes}) > 5
    assert all(node.neuron.v_threshold == node.threshold.item() for node in nodes)


def test_hire_refuses_to_learn_what_a_network_does_not_have(batch):
    with pytest.raises(ValueError, match="net has no neurons that learn"):
        HIRE(learned=1)(learner(network()), *batch)


def test_hire_without_them_is_described_as_it_was():
    assert described("hire") == {"periods": 2, "eps": 8.0, "alpha": 0.01}
    assert described("hire:learned=1") == {"periods": 2, "eps": 8.0, "alpha": 0.01, "learned": 1}


def test_more_periods_than_steps_are_refused(batch):
    with pytest.raises(ValueError, match="periods is 5, expected at most T, which is 4"):
        HIRE(periods=5)(learner(network()), *batch)


# sparse gradients


class Smooth(nn.Module):
    """A network whose gradients are known: logits of a linear layer of the mean over time."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        return self.fc(x.mean(0).flatten(1))


def test_the_penalty_is_the_squared_l1_norm_of_the_gradient_for_a_small_step():
    net = Smooth()
    x, y = torch.rand(3, 5, 3, 2, 2).requires_grad_(), torch.tensor([0, 1, 2, 3, 0])
    logits = net(x)
    found = SparseGradient(h=1e-3).penalty(learner(net, 3), x, y, logits)
    pair = torch.stack([logits[range(5), y], logits.scatter(1, y[:, None], -torch.inf).amax(1)])
    f = pair.softmax(0)[0]
    (gradient,) = torch.autograd.grad(f.sum(), x)
    expected = gradient.abs().sum((0, 2, 3, 4)).square().mean()
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0)


def test_its_step_is_that_of_the_equation_written_out(batch):
    x, y = batch
    net, twin = network(), network()
    loss = SparseGradient(weight=0.5, h=0.01)(learner(net), x, y)
    x = x.clone().requires_grad_()
    z = twin(x)
    others = z.detach().clone()
    others[range(8), y] = -torch.inf
    o = others.argmax(1)

    def f(z):
        return z[range(8), y].exp() / (z[range(8), y].exp() + z[range(8), o].exp())

    v = torch.autograd.grad(f(z).sum(), x, retain_graph=True)[0].sign()
    expected = F.cross_entropy(z, y) + 0.5 * ((f(twin(x.detach() + 0.01 * v)) - f(z)) / 0.01).square().mean()
    expected.backward()
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-4, atol=0)
    torch.testing.assert_close(weights(net), weights(twin), rtol=0, atol=1e-4)


def test_training_with_the_penalty_makes_gradients_smaller(digits):
    sizes = []
    for weight in (0.0, 3.0):
        net = network()
        how = {"epochs": 6, "batch_size": 16, "lr": 3e-3, "T": 4, "seed": 1}
        train(net, *digits, **how, defence=SparseGradient(weight))
        x = PhaseEncoder(4)(digits[0]).requires_grad_()
        z = net(x)
        margin = z.gather(1, digits[1][:, None]) - z.scatter(1, digits[1][:, None], -torch.inf).amax(1, True)
        (gradient,) = torch.autograd.grad(margin.sigmoid().sum(), x)
        sizes.append(gradient.abs().sum((0, 2, 3, 4)).square().mean())
    assert sizes[1] < 0.7 * sizes[0]


# by name


@pytest.mark.parametrize("name", NAMES)
def test_every_defence_trains_and_the_same_seed_gives_the_same_weights(name, digits):
    def once():
        net = network()
        losses = train(net, *digits, epochs=2, batch_size=16, T=4, seed=1, defence=defence_of("defence", name))
        return net, losses

    (a, losses), (b, _) = once(), once()
    assert same(weights(a), weights(b)) and all(loss > 0 for loss in losses) and not a.training
    plain = network()
    train(plain, *digits, epochs=2, batch_size=16, T=4, seed=1)
    assert not same(weights(a), weights(plain))


def test_settings_stand_behind_the_name():
    assert defence_of("defence", "none") is None
    assert defence_of("defence", "snn_rat:eps=4:beta=0.001") == SNNRAT(4, 0.001)
    assert defence_of("defence", "mixed_rat:eps=1.5") == SNNRAT(1.5, mixed=True)
    assert defence_of("defence", "hire:periods=4") == HIRE(4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("snnrat", "Did you mean 'snn_rat'"),
        ("none:eps=1", "none has no settings"),
        ("hire:period=2", "Did you mean 'periods'"),
        ("mixed_rat:mixed=0", "expected one of 'eps', 'beta'"),
        ("snn_rat:eps", "expected a number"),
        ("snn_rat:eps=-1", "eps is -1"),
        ("hire:periods=1", "periods is 1"),
        ("hire:alpha=0", "alpha is 0"),
        ("hire:learned=2", "learned is 2"),
        ("sparse_gradient:h=0", "h is 0"),
        ("sparse_gradient:weight=nan", "weight is nan"),
    ],
)
def test_unknown_names_and_bad_settings_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        defence_of("defence", text)


def test_a_defence_leaves_torchs_generator_alone(digits):
    trainer = Trainer(network(), *digits, epochs=1, batch_size=16, encode=PhaseEncoder(2), defence=SNNRAT(), seed=0)
    before = torch.get_rng_state()
    trainer.epoch()
    assert torch.equal(torch.get_rng_state(), before)
