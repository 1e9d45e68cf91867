"""Square against torchattacks': other random numbers, so it is their success that is compared."""

from __future__ import annotations

import torch

from fastsnn.attacks import Square

from .conftest import library


def test_square_fools_as_many_as_that_of_torchattacks(network):
    """Over 3 seeds of 64 images the shares of both differ by less than 4 standard deviations of their difference."""
    images, eps = torch.rand(64, 3, 16, 16), 5 / 255 if isinstance(network, torch.nn.Sequential) else 24 / 255
    with torch.no_grad():
        y = network(images).argmax(1)

    def fooled(adv):
        with torch.no_grad():
            return int((network(adv).argmax(1) != y).sum())

    ours = theirs = 0
    for seed in range(3):
        attack = Square(network, eps=eps, n_queries=60, generator=torch.Generator().manual_seed(seed))
        ours += fooled(attack(images, y))
        theirs += fooled(library("torchattacks").Square(network, eps=eps, n_queries=60, seed=seed)(images, y))
    share = (ours + theirs) / (2 * 192)
    assert 0.1 < share < 0.9
    assert abs(ours - theirs) < 4 * (2 * 192 * share * (1 - share)) ** 0.5
