from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch.nn.functional import cross_entropy

import fastsnn
from fastsnn.attacks import FGSM, PGD, fgsm, pgd

from ..spikingjelly_networks import batch, pair, reset

HOW = {"eps": 6 / 255, "alpha": 0.01, "steps": 3}


@pytest.fixture(scope="module")
def net():
    """A small network whose running statistics fit its input, so that its neurons do fire."""
    torch.manual_seed(0)
    net = fastsnn.models.sew_resnet18(width=8).train()
    for seed in range(20):
        net(batch(B=8, seed=seed)[0])
    return net.eval()


@pytest.fixture(scope="module")
def clf(net):
    return fastsnn.Classifier(net, fastsnn.nn.PhaseEncoder(T=4))


def plain_step(adv, x, gradient, eps, alpha):
    """What torchattacks, foolbox and ART compute."""
    return (x + (adv + alpha * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1)


def turned_inwards(adv, x, eps):
    """The plain result, with every value that rounding put outside the ball moved one float towards x."""
    outside = (adv.double() - x.double()).abs() > torch.tensor(eps).double()
    return torch.where(outside, torch.nextafter(adv, x), adv)


def plain_pgd(network, x, y, eps, alpha, steps, after=lambda: None):
    adv = x.clone()
    for _ in range(steps):
        adv = adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(network(adv), y), adv)
        after()
        adv = plain_step(adv.detach(), x, gradient, eps, alpha)
    return turned_inwards(adv, x, eps)


def in_ball_exactly(adv, x, eps):
    """Check the budget in exact rational arithmetic where it is closest, and in float64 everywhere."""
    distance = (adv.double() - x.double()).abs()
    bound = torch.as_tensor(eps, dtype=torch.float32).double()
    worst = int(distance.argmax())
    exact = abs(Fraction(adv.flatten()[worst].item()) - Fraction(x.flatten()[worst].item()))
    assert exact <= Fraction(bound.max().item())
    return bool((distance <= bound).all())


@pytest.mark.parametrize("space", ["encoded", "images"])
@pytest.mark.parametrize("eps", [2 / 255, 6 / 255, 16 / 255, 0.3])
def test_pgd_without_a_random_start_is_the_plain_loop_bit_for_bit(net, clf, space, eps):
    x, y = batch(B=4)
    network = net if space == "encoded" else clf
    x = x if space == "encoded" else torch.rand(4, 3, 32, 32)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    expected = plain_pgd(network, x, y, eps, 0.01, 3)
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    adv = pgd(network, x, y, eps=eps, alpha=0.01, steps=3, random_start=False)
    assert torch.equal(adv, expected)
    assert not torch.equal(adv, x)


@pytest.mark.parametrize("eps", [0.0, 1 / 255, 6 / 255, 1.0])
def test_fgsm_is_the_plain_step_bit_for_bit(net, eps):
    x, y = batch(B=4)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(net(leaf), y), leaf)
    expected = turned_inwards((x + eps * gradient.sign()).clamp(0, 1), x, eps)
    assert torch.equal(fgsm(net, x, y, eps=eps), expected)


def test_fgsm_with_a_list_of_budgets_takes_one_gradient(net):
    x, y = batch()
    calls = []
    results = fgsm(lambda x: calls.append(1) or net(x), x, y, eps=[2 / 255, 8 / 255, torch.tensor([0.0, 0.1])])
    assert len(calls) == 1
    for adv, eps in zip(results, [2 / 255, 8 / 255, torch.tensor([0.0, 0.1])], strict=True):
        assert torch.equal(adv, fgsm(net, x, y, eps=eps))
    assert torch.equal(results[2][:, 0], x[:, 0])


@pytest.mark.parametrize(("bn", "training"), [("frozen", False), ("batch", True), ("drift", True)])
def test_every_bn_mode_under_reference_is_that_of_spikingjelly_in_the_same_mode(bn, training):
    ours, theirs = pair(18)
    x, y = batch(B=4)
    before = {name: buffer.clone() for name, buffer in ours.named_buffers()}
    theirs.train(training)
    expected = plain_pgd(lambda x: theirs(x).mean(0), x, y, **HOW, after=lambda: reset(theirs))
    adv = pgd(ours, x, y, random_start=False, bn=bn, precision="reference", **HOW)
    assert torch.equal(adv, expected)
    drifted = dict(theirs.named_buffers())
    for name, buffer in ours.named_buffers():
        assert torch.equal(buffer, drifted[name] if bn == "drift" else before[name]), name


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("eps", [0.0, 1e-7, 6 / 255, 0.1, 1.0])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_result_is_in_the_ball_and_in_the_unit_cube_exactly(net, eps, steps, random_start):
    torch.manual_seed(1)
    x, y = batch(B=4)
    x = torch.where(torch.rand_like(x) < 0.5, x, torch.rand_like(x))
    adv = pgd(net, x, y, eps=eps, alpha=0.01, steps=steps, random_start=random_start)
    assert in_ball_exactly(adv, x, eps)
    assert adv.min() >= 0 and adv.max() <= 1
    assert torch.equal(adv, x) == (eps == 0 or (steps == 0 and not random_start))


def test_a_budget_per_sample_equals_one_run_per_budget(net):
    x, y = batch(B=4)
    budgets = torch.tensor([0.0, 2 / 255, 6 / 255, 0.1])
    adv = pgd(net, x, y, eps=budgets, alpha=0.01, steps=3, random_start=False)
    for i, eps in enumerate(budgets.tolist()):
        alone = pgd(net, x, y, eps=eps, alpha=0.01, steps=3, random_start=False)
        assert torch.equal(adv[:, i], alone[:, i])
    assert in_ball_exactly(adv, x, budgets.view(1, 4, 1, 1, 1))


def test_more_budget_raises_the_loss_and_noise_of_the_same_size_raises_it_less(net):
    x, _ = batch(B=16)
    with torch.no_grad():
        y = net(x).argmax(1)

    @torch.no_grad()
    def loss(adv):
        return cross_entropy(net(adv), y).item()

    noise = (x + 0.05 * torch.randn_like(x).sign()).clamp(0, 1)
    losses = [loss(pgd(net, x, y, eps=eps, alpha=eps / 4, steps=10, random_start=False)) for eps in (0.05, 0.1, 0.3)]
    assert loss(x) < loss(noise) < losses[0] < losses[1] < losses[2]


def state_of(net):
    modes = {name: module.training for name, module in net.named_modules()}
    parameters = {name: (p.requires_grad, p.clone(), p.grad) for name, p in net.named_parameters()}
    return modes, parameters, {name: buffer.clone() for name, buffer in net.named_buffers()}


def assert_same_state(net, before):
    modes, parameters, buffers = before
    assert {name: module.training for name, module in net.named_modules()} == modes
    for name, parameter in net.named_parameters():
        requires_grad, value, grad = parameters[name]
        assert parameter.requires_grad == requires_grad and torch.equal(parameter, value) and parameter.grad is grad
    for name, buffer in net.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("bn", ["frozen", "batch", "drift"])
def test_the_network_is_left_as_it_was_found_also_after_an_exception(bn, fails):
    torch.manual_seed(0)
    net = fastsnn.models.sew_resnet18(width=4).train()
    net.layer2.eval()
    net.conv1.weight.requires_grad_(False)
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    x, y = batch()
    calls = []

    def explode(module, inputs):
        calls.append(1)
        if fails and len(calls) == 2:
            raise KeyboardInterrupt

    handle = net.fc.register_forward_pre_hook(explode)
    before = state_of(net)
    if fails:
        with pytest.raises(KeyboardInterrupt):
            pgd(net, x, y, bn=bn, **HOW)
    else:
        pgd(net, x, y, bn=bn, **HOW)
    handle.remove()
    if bn == "drift" and not fails:  # drifting statistics are what was asked for
        drifted = dict(net.named_buffers())
        assert not torch.equal(drifted["bn1.running_mean"], before[2]["bn1.running_mean"])
        before = (*before[:2], {name: buffer.clone() for name, buffer in drifted.items()})
    assert_same_state(net, before)
    assert torch.is_grad_enabled()
    assert fastsnn.nn.layers.current() == "fp32"


def test_a_generator_decides_the_random_start_and_leaves_torchs_own_alone(net):
    x, y = batch()
    state = torch.get_rng_state()
    first, again, other = (pgd(net, x, y, generator=torch.Generator().manual_seed(seed), **HOW) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(net, threads):
    x, y = batch(B=4)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        adv = pgd(net, x, y, generator=torch.Generator().manual_seed(0), **HOW)
        torch.set_num_threads(1)
        assert torch.equal(adv, pgd(net, x, y, generator=torch.Generator().manual_seed(0), **HOW))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_attacks_work_where_gradients_are_switched_off(net, mode):
    x, y = batch()
    expected = pgd(net, x, y, random_start=False, **HOW)
    with mode():
        assert torch.equal(pgd(net, x.clone(), y.clone(), random_start=False, **HOW), expected)
        assert torch.equal(fgsm(net, x.clone(), y.clone(), eps=0.1), fgsm(net, x, y, eps=0.1))


def test_classes_are_the_functions_with_their_settings_held(clf):
    images, y = torch.rand(4, 3, 32, 32), torch.arange(4)
    assert torch.equal(FGSM(clf, eps=0.1)(images, y), fgsm(clf, images, y, eps=0.1))
    settings = {"eps": 8 / 255, "alpha": 2 / 255, "steps": 2}
    first = PGD(clf, **settings, generator=torch.Generator().manual_seed(0))(images, y)
    assert torch.equal(first, pgd(clf, images, y, **settings, generator=torch.Generator().manual_seed(0)))


def test_an_empty_batch_comes_back_empty(net):
    x, y = torch.zeros(4, 0, 3, 32, 32), torch.zeros(0, dtype=torch.long)
    assert pgd(net, x, y, **HOW).shape == x.shape
    assert fgsm(net, x, y, eps=0.1).shape == x.shape


BAD_INPUT = [
    ({"x": torch.zeros(4, 2, 3, 32, 32, dtype=torch.float64)}, TypeError, "x has dtype float64"),
    ({"x": "pixels"}, TypeError, "x is of type str"),
    ({"x": torch.zeros(5)}, ValueError, "x has shape"),
    ({"x": torch.zeros(0, 2, 3, 32, 32)}, ValueError, "time axis"),
    ({"x": torch.full((4, 2, 3, 32, 32), 1.5)}, ValueError, "expected numbers in [0, 1]"),
    ({"x": torch.full((4, 2, 3, 32, 32), float("nan"))}, ValueError, "x has inf or NaN"),
    ({"y": torch.zeros(3, dtype=torch.long)}, ValueError, "y has shape [3], expected [2]"),
    ({"y": torch.zeros(2)}, TypeError, "y has dtype float32"),
    ({"y": torch.tensor([0, -1])}, ValueError, "y has the label -1"),
    ({"y": torch.tensor([0, 10])}, ValueError, "y has the label 10, but network returned 10 classes"),
    ({"y": torch.zeros(2, dtype=torch.long, device="meta")}, ValueError, "y is on meta but x is on cpu"),
    ({"eps": -0.1}, ValueError, "eps is -0.1"),
    ({"eps": float("inf")}, ValueError, "eps is inf"),
    ({"eps": torch.tensor([0.1, -0.1])}, ValueError, "eps holds"),
    ({"eps": torch.ones(3)}, ValueError, "eps has shape [3], expected [2]"),
    ({"alpha": 0}, ValueError, "alpha is 0 with steps=3"),
    ({"alpha": "big"}, TypeError, "alpha is 'big'"),
    ({"steps": -1}, ValueError, "steps is -1"),
    ({"steps": 2.5}, TypeError, "steps is 2.5"),
    ({"bn": "freeze"}, ValueError, "Did you mean 'frozen'"),
    ({"precision": "fp16"}, ValueError, "precision is 'fp16'"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), BAD_INPUT)
def test_bad_input_is_refused_by_name_and_the_network_is_left_alone(net, wrong, error, message):
    x, y = batch()
    arguments = {"x": x, "y": y, **HOW, **wrong}
    before = state_of(net)
    with pytest.raises(error) as caught:
        pgd(net, **arguments)
    assert message in str(caught.value)
    assert_same_state(net, before)


def test_logits_that_are_not_finite_are_refused(net):
    x, y = batch()
    with pytest.raises(ValueError, match="not finite"):
        pgd(lambda x: net(x) * float("nan"), x, y, **HOW)


def test_logits_that_do_not_depend_on_the_input_are_refused(net):
    images, y = torch.rand(2, 3, 32, 32), torch.arange(2)
    blind = fastsnn.Classifier(net, fastsnn.nn.PhaseEncoder(T=4, straight_through=False))
    with pytest.raises(ValueError, match="straight_through"):
        fgsm(blind, images, y, eps=0.1)


def test_logits_of_the_wrong_shape_are_refused(net):
    x, y = batch()
    with pytest.raises(ValueError, match=r"network returned shape \[4, 2, 10\]"):
        fgsm(net.forward_sequence, x, y, eps=0.1)


def test_a_bare_callable_cannot_be_put_in_another_bn_mode(net):
    x, y = batch()
    with pytest.raises(ValueError, match="bare callable"):
        fgsm(lambda x: net(x), x, y, eps=0.1, bn="drift")
