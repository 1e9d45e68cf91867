"""Theorems 4.2 to 4.4 on cases worked out by hand."""

import math

import pytest
import torch
from torch import nn

from fastsnn.analysis import densities, gradient_snr, shared_zeros

from ..attacks.networks import settled
from ..spikingjelly_networks import batch


class MeanOverTime(nn.Module):
    """Weights of zero: both classes have probability 1/2, and the gradient of row 0 is -1/2 times the mean of x."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 2)
        nn.init.zeros_(self.fc.weight), nn.init.zeros_(self.fc.bias)

    def forward(self, x):
        return self.fc(x.flatten(2)).mean(0)


def noisy(second):
    """Two steps of 0.5 with noise of 0.25: of signs (+, +, -, -) in the first, of `second` in the other."""
    first, second = torch.tensor([1.0, 1, -1, -1]), torch.tensor(second)
    return (0.5 + 0.25 * torch.stack([first, second])).view(2, 4, 1, 1, 1)


@pytest.mark.parametrize(
    ("second", "gain"), [([1.0, -1, 1, -1], 2), ([1.0, 1, -1, -1], 1)], ids=["uncorrelated", "the same"]
)
def test_time_averages_uncorrelated_noise_away_and_no_other(second, gain):
    """With gradients (-m/2, m/2) of a mean m: |E g|^2 = 2 * (0.5 / 2)^2, E |g - E g|^2 = 2 * var(m) / 4."""
    one, two = gradient_snr(MeanOverTime(), noisy(second), torch.zeros(4, dtype=torch.int64), T=(1, 2))
    noise = 2 * (0.25**2 * 4 / 3) / 4
    assert (one.T, two.T) == (1, 2)
    assert (one.noise, two.noise) == pytest.approx((noise, noise / gain))
    assert (one.signal, two.signal) == pytest.approx((0.125 - noise / 4, 0.125 - noise / gain / 4))
    assert two.snr == pytest.approx(two.signal / two.noise)


def test_the_snr_of_a_spiking_network_can_be_measured_at_any_layer():
    net, (x, y) = settled().train(), batch(T=4, B=4)
    first = gradient_snr(net, x, y, T=(1, 4))
    assert all(row.noise > 0 and math.isfinite(row.snr) for row in first)
    named, last = (gradient_snr(net, x, y, T=(1, 4), layer=layer) for layer in ("conv1", "fc"))
    for row, same, other in zip(first, named, last, strict=True):
        assert row == pytest.approx(same, rel=1e-6), "torch's gradient of weights does not always have the same bits"
        assert row != pytest.approx(other, rel=1e-2)
    assert net.training and all(p.requires_grad and p.grad is None for p in net.parameters())


def hidden(width=4):
    """Linear(identity), ReLU, Linear: where x is negative, nothing passes, forwards or back."""
    net = nn.Sequential(nn.Flatten(), Shift(), nn.Linear(width, width, bias=False), nn.ReLU(), nn.Linear(width, 2))
    net[2].weight.data = torch.eye(width)
    return net


class Shift(nn.Module):
    def forward(self, x):
        return x - 0.5


def test_zeros_of_the_chain_are_shared_by_hand():
    """Sample i has i units that are silent: of x 4 - i numbers have a gradient, of the weights as many rows."""
    x = torch.tensor([[1.0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]]).view(3, 4, 1, 1)
    rows = {row.layer: row for row in shared_zeros(hidden(), x, torch.tensor([0, 1, 0]))}
    assert rows.keys() == {"2", "4"}
    for row in rows.values():
        assert row.zeros == row.zeros_at_input == pytest.approx((0 + 1 / 4 + 2 / 4) / 3)
        assert row.correlation == pytest.approx(1)
    (row, _) = shared_zeros(hidden(), x[:1], torch.tensor([0]))
    assert (row.zeros, row.zeros_at_input) == (0, 0) and math.isnan(row.correlation)


class OnePixel(nn.Module):
    """A 1x1 convolution of which the loss sees one pixel."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 1, 1, bias=False), nn.Linear(4, 2, bias=False)
        self.fc.weight.data = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])

    def forward(self, x):
        return self.fc(self.conv(x.flatten(0, 1)).view(len(x), -1, 4)).mean(0)


def test_the_bound_on_densities_is_reached_by_one_pixel():
    found = densities(OnePixel(), torch.ones(1, 1, 1, 2, 2), torch.tensor([0]))
    assert (found.at_weight.item(), found.at_input.item(), found.factor, found.bound.item()) == (1, 0.25, 4, 1)
    silent = densities(OnePixel(), torch.zeros(1, 1, 1, 2, 2), torch.tensor([0]))
    assert silent.at_weight.item() == 0 < silent.bound.item(), "without input there is no weight gradient"


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_the_bound_on_densities_holds_in_a_spiking_network(pool):
    x, y = batch(T=3, B=3)
    found = densities(settled(pool=pool), x, y)
    assert (found.at_weight <= found.bound).all() and (found.at_input > 0).all()
    assert found.factor == 3 * 32 * 32 * 16 / 49, "7x7 windows with stride 2"


def test_bad_input_is_refused():
    net, (x, y) = settled(), batch(T=2, B=2)
    with pytest.raises(ValueError, match="T is 3, expected an integer from 1 to 2"):
        gradient_snr(net, x, y, T=[3])
    with pytest.raises(ValueError, match="Did you mean 'conv1'"):
        gradient_snr(net, x, y, T=[1], layer="conv_1")
    with pytest.raises(ValueError, match="B of at least 2"):
        gradient_snr(net, x[:, :1], y[:1])
    with pytest.raises(ValueError, match="no convolution or linear layer"):
        gradient_snr(nn.Flatten(), x, y)
    with pytest.raises(ValueError, match="begins with 2: Linear"):
        densities(hidden(), x, y)
    with pytest.raises(ValueError, match=r"expected encoded input"):
        densities(net, x[0], y)
    with pytest.raises(ValueError, match="no sample"):
        shared_zeros(net, x[:, :0], y[:0])


@pytest.mark.parametrize("measure", [densities, gradient_snr])
def test_bad_input_is_refused_by_name(measure):
    net, x, y = settled(), torch.rand(2, 2, 3, 16, 16), torch.tensor([0, 11])
    with pytest.raises(ValueError, match="y has the label 11"):
        measure(net, x, y)
    with pytest.raises(TypeError, match="x"):
        measure(net, x.tolist(), y)
