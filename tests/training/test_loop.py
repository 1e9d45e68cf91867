import pytest
import torch
import torch.nn.functional as F

from fastsnn import data, functional, models
from fastsnn.engine import prepare
from fastsnn.training import count_correct, evaluate, train


@pytest.fixture(scope="module")
def digits():
    some = data.load("digits", "train")
    return some.images[:48], some.labels[:48]


def network(seed=0):
    torch.manual_seed(seed)
    return models.sew_resnet18(width=4)


def trained(digits, **options):
    net = network()
    how = {"epochs": 1, "batch_size": 16, "T": 4, "K": 8, "seed": 1} | options
    losses = train(net, *digits, **how)
    return net, losses


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_one_batch_is_one_step_of_adam(digits):
    images, labels = digits[0][:16], digits[1][:16]
    net, losses = trained((images, labels))
    twin = network().train()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3, weight_decay=1e-3)
    loss = F.cross_entropy(prepare(twin)(functional.phase_encode(images[order], 4, 8)), labels[order])
    loss.backward()
    optimizer.step()
    assert same_weights(net, twin)
    assert losses == pytest.approx([loss.item()], rel=1e-6)


def test_the_same_seed_gives_the_same_weights_bit_for_bit(digits):
    assert same_weights(trained(digits)[0], trained(digits)[0])


def test_another_seed_gives_other_weights(digits):
    assert not same_weights(trained(digits)[0], trained(digits, seed=2)[0])


def test_the_global_generator_is_not_touched(digits):
    net = network()
    before = torch.get_rng_state()
    train(net, *digits, epochs=1, batch_size=16, T=2, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loss_falls_and_two_classes_are_told_apart():
    some = data.load("digits", "train")
    chosen = (some.labels < 2).nonzero().flatten()[:32]
    digits = some.images[chosen], some.labels[chosen]
    net, losses = trained(digits, epochs=10, lr=1e-2, schedule="cosine", T=8)
    assert losses[-1] < 0.2 * losses[0]
    assert evaluate(net, *digits, T=8) > 0.9


def test_cosine_ends_at_a_learning_rate_of_zero(digits, monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *a, **k: (rates.append(self.param_groups[0]["lr"]), step(self, *a, **k))
    )
    trained(digits, lr=1e-2, schedule="cosine", epochs=2)
    assert rates[0] == 1e-2 and rates == sorted(rates, reverse=True) and rates[3] == pytest.approx(5e-3)
    assert rates[-1] < 1e-3


def test_the_network_is_left_in_eval_mode(digits):
    net, _ = trained(digits)
    assert not any(module.training for module in net.modules())


def test_every_batch_is_told_also_the_short_last_one(digits):
    batches = []
    trained((digits[0][:20], digits[1][:20]), epochs=2, on_batch=batches.append)
    assert [(batch.epoch, batch.images) for batch in batches] == [(1, 16), (1, 4), (2, 16), (2, 4)]
    assert all(batch.loss.isfinite() and not batch.loss.requires_grad for batch in batches)


def test_cudnn_is_deterministic_while_training_only(digits, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    seen = []
    trained((digits[0][:4], digits[1][:4]), on_batch=lambda _: seen.append(torch.backends.cudnn.deterministic))
    assert seen == [True] and torch.backends.cudnn.deterministic is False


def test_accuracy_counts_the_right_ones_whatever_the_batch_size(digits):
    net, _ = trained(digits)
    x = functional.phase_encode(digits[0], 4, 8)
    with torch.no_grad():
        expected = (net(x).argmax(1) == digits[1]).float().mean().item()
    for batch_size in (7, 48):
        told = []
        assert evaluate(net, *digits, T=4, batch_size=batch_size, on_batch=told.append) == pytest.approx(expected)
        assert sum(told) == 48
    assert count_correct(net, x, digits[1]) == round(expected * 48)


def test_scoring_leaves_the_network_in_its_mode_and_its_statistics_alone(digits):
    net = network().train()
    net.layer1.eval()
    modes, before = [module.training for module in net.modules()], net.bn1.running_mean.clone()
    evaluate(net, *digits, T=2)
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(net.bn1.running_mean, before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"seed": -1}, "seed is -1"),
        ({"T": 0}, "T is 0"),
    ],
)
def test_bad_settings_are_refused(digits, wrong, message):
    with pytest.raises(ValueError, match=message):
        trained(digits, **wrong)


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.long), TypeError, "images has dtype float32"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.long), ValueError, r"\[N, C, H, W\]"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.long), ValueError, "N of at least 1"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.long), ValueError, "labels has shape"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, -1]), ValueError, "labels holds -1"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 10]), ValueError, "go up to 10"),
    ],
)
def test_bad_images_and_labels_are_refused(images, labels, error, message):
    with pytest.raises(error, match=message):
        train(network(), images, labels, epochs=1, batch_size=2, T=2, seed=0)


def test_a_loss_that_is_not_finite_is_said(digits):
    net = network()
    net.fc.weight.data.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match=r"loss is .* in epoch 1"):
        train(net, *digits, epochs=3, batch_size=48, T=2, seed=0)
