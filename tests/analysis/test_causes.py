import pytest
import torch
from torch import nn

import fastsnn
from fastsnn.analysis import attribute_zeros, switched_off
from fastsnn.nn import IFNode, Junction, over_time

from ..attacks.networks import settled
from ..spikingjelly_networks import batch

WINDOW = torch.tensor(
    [[1.0, 0.2], [0.2, 0.8]]
)  # the surrogate below is zero at 0.2; the max pool takes the first spike


class Small(nn.Module):
    """Neurons, a max pool, a strided 1x1 convolution, a linear layer: a 4x4 picture becomes 2x2, then 1x1."""

    def __init__(self):
        super().__init__()
        self.sn = IFNode(surrogate="rectangle", alpha=1.0)  # flat within 0.5 of the threshold, else 0
        self.pool = nn.MaxPool2d(2)
        self.conv = nn.Conv2d(1, 1, 1, stride=2, bias=False)
        self.fc = nn.Linear(1, 2)

    def forward(self, x):
        x = over_time(self.conv, over_time(self.pool, self.sn(x)))
        return over_time(self.fc, x.flatten(2)).mean(0)


def small():
    return Small(), WINDOW.repeat(2, 2).view(1, 1, 1, 4, 4), torch.tensor([0])


def test_every_cause_explains_the_zeros_counted_by_hand():
    """Of 16 numbers at x one is not zero: in the window that the stride keeps, the pixel that the pool keeps."""
    rows = {row.layer: row for row in attribute_zeros(*small())}
    x = rows["network"]
    assert x == rows["sn"]._replace(layer="network", kind="network")
    assert x.zeros == 15 / 16
    assert x.max_pool == 1 / 16, "the window's other pixel where the surrogate is not zero"
    assert x.stride == 3 / 16, "the arg-max of each of the other windows"
    assert x.neuron == 0, "no pixel that the pool keeps has a surrogate of zero"
    assert x.architectural == 7 / 16, "two pixels in each of four windows, of which there was one"
    assert x.natural == x.junction == x.left == 0
    pool = rows["pool"]
    assert (pool.zeros, pool.max_pool, pool.stride, pool.neuron) == (15 / 16, 3 / 16, 3 / 16, 0)
    conv = rows["conv"]
    assert (conv.zeros, conv.max_pool, conv.stride, conv.neuron) == (3 / 4, 0, 3 / 4, 0)


def test_a_surrogate_that_is_zero_is_natural_sparsity():
    net, x, y = small()
    with torch.no_grad():
        x[0, 0, 0, 0, 0] = (
            0.2  # then the arg-max of that window is 0.8? No: neither fires, and the pool takes the first
        )
    row = attribute_zeros(net, x, y)[0]
    assert row.zeros == 1 and row.neuron == row.natural == 1 / 16 and row.max_pool == 1 / 16


def test_junctions_that_multiply_stop_gradients_and_add_does_not():
    class Joined(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.sn, self.junction, self.fc = IFNode(), Junction(kind), nn.Linear(4, 2)

        def forward(self, x):
            here = torch.ones_like(x).cumsum(-1) > 2  # two residuals of four are 1
            out = fastsnn.nn.layers.norm_fire(nn.BatchNorm2d(1).eval(), self.sn, x, here.float(), self.junction)
            return self.fc(out.flatten(2).mean(0))

    x, y = torch.rand(3, 1, 1, 1, 4), torch.tensor([0])
    for kind, zeros in (("and", 0.5), ("iand", 0.5), ("and_not", 0.5), ("add", 0.0)):
        rows = {row.layer: row for row in attribute_zeros(Joined(kind), x, y)}
        assert rows["sn"].zeros == rows["sn"].junction == rows["sn"].natural == zeros, kind
        assert rows["sn"].max_pool == rows["sn"].stride == rows["sn"].left == 0


@pytest.mark.parametrize("cause", ["max pool", "stride", "neuron", "junction"])
def test_outputs_stay_the_same_bit_for_bit(cause):
    net, (x, _) = settled(), batch()
    with fastsnn.nn.precision("reference"):
        expected = net(x)
        with switched_off(net, cause):
            assert torch.equal(net(x), expected)
    assert not any(fastsnn.nn.is_watched(module) for module in net.modules())


def test_in_a_sew_resnet_the_max_pools_zeros_are_architectural_and_the_shortcuts_are_the_strides():
    rows = {row.layer: row for row in attribute_zeros(settled(), *batch())}
    pool, shortcut = rows["maxpool"], rows["layer2.0.downsample.0"]
    assert pool.zeros == pool.max_pool + 0.0 == pool.architectural > 0.7 and pool.neuron == pool.left == 0
    assert shortcut.zeros == shortcut.stride == 0.75 and shortcut.max_pool == 0


def test_bad_input_is_refused():
    net, x, y = small()
    with pytest.raises(ValueError, match="Did you mean 'max pool'"), switched_off(net, "maxpool"):
        pass
    with pytest.raises(TypeError, match="read once only"):
        attribute_zeros(net, iter([(x, y)]))
