import pytest
import torch
from torch import nn

from fastsnn import attacks
from fastsnn.analysis import verdict
from fastsnn.nn import seen_through

from ..attacks.networks import settled
from ..spikingjelly_networks import batch

EPS = 0.0625
HOW = {"eps": EPS, "alpha": 0.03125, "steps": 3, "draws": 20, "search_images": 8, "queries": 30}


class Linear(nn.Module):
    """Two classes told apart by the sum of 16 pixels, each counted from 1/2: |margin| is 16 eps at the most."""

    def __init__(self, show=lambda z: z):
        super().__init__()
        self.show = show  # what the gradient sees of the input

    def forward(self, x):
        z = self.show(x.flatten(1) - 0.5).sum(1, keepdim=True)
        return torch.cat([z, -z], 1)


def pictures(margins=(0.01, 0.03, 0.05, 0.1, 0.3)):
    """Pictures of the first class, each pixel so much above 1/2."""
    margins = torch.tensor(margins)
    return (0.5 + margins).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous(), torch.zeros(len(margins)).long()


def results(found):
    return {row.check: row.result for row in found}


def test_an_honest_gradient_passes_every_check_that_can_be_made():
    told = []
    found = verdict(Linear(), *pictures(), **HOW, on_check=told.append)
    assert told == list(found) and len(found) == 14
    assert {row.check for row in found if row.result == "not run"} == {
        "white box beats transfer",
        "no other surrogate is better",
        "no other batch-norm mode is better",
    }
    assert not [row for row in found if row.result == "fail"], found
    assert found.pgd == found.worst == 2 / 5, "margins of 0.1 and 0.3 are beyond 0.0625"
    assert found.conclusion == (
        "No sign of masked gradients in 11 checks: "
        "at eps = 15.9375/255 PGD leaves 40.0% right, all attacks together 40.0%."
    )
    lines = str(found).splitlines()
    assert (
        len(lines) == 1 + 14 + 1 and lines[0].split() == ["check", "result", "seen"] and lines[-1] == found.conclusion
    )


def backwards(z):
    """The true value, with the gradient's sign turned: an attack walks away from where it should go."""
    return -z + 2 * z.detach()


def test_a_gradient_that_points_the_wrong_way_is_found_out():
    found = verdict(Linear(backwards), *pictures(), **HOW, other=Linear())
    failed = {row.check for row in found if row.result == "fail"}
    assert failed == {
        "a larger eps is stronger",
        "eps = 1 reaches 0 %",
        "noise finds nothing that PGD missed",
        "white box beats transfer",
        "white box beats Square",
    }
    assert found.pgd == 1 and found.worst == 2 / 5, "the transferred attack finds what there is"
    assert found.conclusion.startswith(
        "The gradient is masked, or the attack too weak: 5 of 12 checks failed (a larger eps is stronger;"
    )


def test_saturated_logits_have_no_gradient():
    found = verdict(Linear(lambda z: 1e4 * z), *pictures(), **HOW)
    row = next(row for row in found if row.check == "every sample has a gradient")
    assert row.result == "fail" and row.seen == "5 of 5 gradients are 0 everywhere"


def test_one_step_that_beats_many_and_doubled_steps_that_gain_are_found():
    class Stair(nn.Module):
        """The gradient is right at the picture itself and turned beyond: one large step is best."""

        def forward(self, x):
            z = (x.flatten(1) - 0.5).sum(1, keepdim=True)
            at_home = (x.flatten(1).std(1, keepdim=True) < 1e-3).float()
            z = at_home * z + (1 - at_home) * backwards(z)
            return torch.cat([z, -z], 1)

    assert results(verdict(Stair(), *pictures(), **HOW))["one step does not beat many"] == "fail"
    slow = {**HOW, "alpha": EPS / 8, "steps": 2}
    assert results(verdict(Linear(), *pictures([0.021] * 8), **slow))["twice the steps gain nothing"] == "fail"


def test_square_is_the_attack_of_that_name_and_finds_what_no_gradient_shows():
    x, y = pictures()
    found = verdict(Linear(backwards), x, y, **HOW, batch_size=2, seed=3)
    assert results(found)["white box beats Square"] == results(found)["Square adds nothing"] == "fail"
    seeds = torch.randint(2**63 - 1, (len(y),), generator=torch.Generator().manual_seed(3)).tolist()
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    adv = attacks.square(Linear(), x, y, eps=EPS, n_queries=30, generator=generators)
    left = (Linear()(adv).argmax(1) == y).double().mean()
    seen = next(row.seen for row in found if row.check == "white box beats Square")
    assert left < 1 and seen == f"PGD leaves 100.0%, 30 queries {left:.1%}"


def test_square_can_be_left_out_and_needs_pictures():
    without = results(verdict(Linear(), *pictures(), **{**HOW, "queries": 0}))
    flat = results(verdict(Linear(), pictures()[0].flatten(1), pictures()[1], **HOW))
    for found in (without, flat):
        assert found["white box beats Square"] == found["Square adds nothing"] == "not run"


def test_black_box_attacks_are_brought_into_the_ball_and_count():
    boxes = {"shift": lambda x, y: x - 1, "nothing": lambda x, y: x}
    found = verdict(Linear(backwards), *pictures(), **HOW, black_box=boxes)
    assert results(found)["white box beats shift"] == "fail" and results(found)["white box beats nothing"] == "pass"
    assert found.worst == 2 / 5


class Moody(Linear):
    def forward(self, x):
        return super().forward(x) + 0.01 * torch.rand(len(x), 1)


def test_random_answers_and_probabilities_are_found():
    assert results(verdict(Moody(), *pictures(), **HOW))["same answer when asked again"] == "fail"
    net = nn.Sequential(Linear(), nn.Softmax(1))
    assert results(verdict(net, *pictures(), **HOW))["answers are logits"] == "fail"


def test_a_spiking_network_with_a_narrow_surrogate_is_found_out_and_left_as_it_was():
    net, (x, _) = settled(), batch(T=4, B=24)
    y = net(x).argmax(1)
    for module in net.modules():
        if hasattr(module, "neuron"):
            module.neuron = module.neuron._replace(surrogate="rectangle", alpha=1e4)  # hardly ever not 0
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = verdict(
        net, x, y, eps=0.2, alpha=0.07, steps=6, draws=2, search_images=2, queries=2, surrogates=(("atan", 2.0),)
    )
    assert results(found)["no other surrogate is better"] == "fail"
    assert results(found)["no other batch-norm mode is better"] in ("pass", "fail")
    assert found.worst < found.pgd
    assert net.training and all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert {module.neuron.surrogate for module in net.modules() if hasattr(module, "neuron")} == {"rectangle"}


def test_the_attack_is_pgd_as_it_stands():
    net, (x, y) = settled(), batch(T=3, B=7)
    found = verdict(net, x, y, eps=0.05, alpha=0.02, steps=2, draws=1, queries=0, surrogates=(), batch_size=3, seed=5)
    draw = torch.Generator().manual_seed(5)
    how = {"eps": 0.05, "alpha": 0.02, "steps": 2, "generator": draw}
    adv = torch.cat([attacks.pgd(net, *part, **how) for part in zip(x.split(3, 1), y.split(3), strict=True)], 1)
    assert found.pgd == pytest.approx((net(adv).argmax(1) == y).double().mean().item())
    assert results(found)["no other surrogate is better"] == "not run"


def test_another_surrogate_changes_gradients_and_no_outputs():
    net, (x, y) = settled(), batch()
    expected, own = net(x), attacks.fgsm(net, x, y, eps=0.1)
    with seen_through(net, "triangle", 1.0):
        assert torch.equal(net(x), expected)
        assert not torch.equal(attacks.fgsm(net, x, y, eps=0.1), own)
    assert torch.equal(attacks.fgsm(net, x, y, eps=0.1), own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": 0}, "eps is 0"),
        ({"eps": 1.0}, "expected less than 1"),
        ({"alpha": 0}, "alpha is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"draws": 0}, "draws is 0"),
        ({"queries": -1}, "queries is -1"),
        ({"tolerance": -1}, "tolerance is -1"),
        ({"surrogates": (("atn", 2.0),)}, "Did you mean 'atan'"),
        ({"x": torch.rand(0, 1, 4, 4), "y": torch.zeros(0).long()}, "no sample"),
        ({"network": lambda x: x}, "expected a torch.nn.Module"),
    ],
)
def test_bad_input_is_refused(change, message):
    x, y = pictures()
    arguments = {"network": Linear(), "x": x, "y": y, **HOW} | change
    with pytest.raises((ValueError, TypeError), match=message):
        verdict(arguments.pop("network"), arguments.pop("x"), arguments.pop("y"), **arguments)
