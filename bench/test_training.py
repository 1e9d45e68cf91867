"""One Adam step of SEW-ResNet18, batch 16, T = 10, 32x32, float32: fastsnn against the same step on SpikingJelly."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from fastsnn.engine import prepare

from .baselines import reset_net
from .test_attack import BATCH, setting


def test_adam_step_vs_spikingjelly(compare):
    """Checked first: the loss, and the gradient of every parameter to a relative 1e-4."""
    ours, theirs, x, y = setting(18, "max")
    networks = {ours.train(): prepare(ours), theirs.train(): lambda x: theirs(x).mean(0)}
    optimizers = {net: torch.optim.Adam(net.parameters(), lr=1e-3) for net in networks}

    def step(net, update=True):
        loss = cross_entropy(networks[net](x), y)
        optimizers[net].zero_grad()
        loss.backward()
        reset_net(theirs)
        if update:
            optimizers[net].step()
        return loss.detach()

    torch.testing.assert_close(step(ours, update=False), step(theirs, update=False), rtol=1e-5, atol=1e-5)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        error = (a.grad - b.grad).norm() / b.grad.norm()
        assert error <= 1e-4, f"the gradients of {name} differ by {error:.1e}: no speed is worth printing"

    def check(ours, theirs):
        assert torch.isfinite(ours) and torch.isfinite(theirs)  # compared above, before the weights went apart

    note = "{:.1f} images/s".format
    compare(lambda: step(ours), lambda: step(theirs), check, rounds=5, note=lambda seconds: note(BATCH / seconds))
