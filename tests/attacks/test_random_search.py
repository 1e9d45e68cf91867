"""Square: its schedule by hand, its promises, and squares that are squares."""

from __future__ import annotations

import pytest
import torch

from fastsnn.attacks import Square, pgd, square
from fastsnn.attacks.random_search import side

from .networks import plain, tiny


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def right(network, x):
    with torch.no_grad():
        return network(x).argmax(1)


class Counted:
    """A network that remembers what it was asked."""

    def __init__(self, network):
        self.network, self.asked = network, []

    def __call__(self, x):
        self.asked.append(x.clone())
        return self.network(x)


def test_the_sides_are_those_of_the_paper():
    """p = 0.8 halves at 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10000 queries; side sqrt(p * 32 * 32)."""
    sides = [side(query, 10000, 0.8, 32, 32) for query in (0, 10, 11, 50, 51, 500, 501, 8000, 8001)]
    assert sides == [29, 29, 20, 20, 14, 10, 7, 2, 1]
    assert side(5, 5000, 0.8, 32, 32) == 29 and side(6, 5000, 0.8, 32, 32) == 20
    assert side(0, 10, 1.0, 4, 16) == 4


@pytest.mark.parametrize("eps", [0.0, 1e-7, 1 / 255, 8 / 255, 1.0])
def test_all_it_asks_is_in_the_ball_exactly_and_the_result_is_fooled_or_x_itself(eps):
    corners = torch.randint(0, 2, (6, 3, 8, 8)).float()
    x = torch.where(torch.rand(6, 3, 8, 8) < 0.5, torch.rand(6, 3, 8, 8), corners)
    network = Counted(plain())
    y = right(plain(), x)
    adv = square(network, x, y, eps=eps, n_queries=30, generator=seeded())
    bound = torch.tensor(eps).double()
    assert len(network.asked) <= 31 and torch.equal(network.asked[0], x)
    assert all(asked.min() >= 0 and asked.max() <= 1 for asked in network.asked)
    for asked in network.asked:  # of those that are left: each has its own origin among the rows of x
        distance = (asked.double()[:, None] - x.double()[None]).abs().flatten(2).amax(2)
        assert (distance.amin(1) <= bound).all()
    assert ((adv.double() - x.double()).abs() <= bound).all()
    moved = (adv != x).flatten(1).any(1)
    assert torch.equal(right(plain(), adv) != y, moved)
    assert moved.any() == (eps >= 8 / 255) or eps == 1 / 255


def test_a_candidate_differs_from_the_best_by_a_square_of_one_value_per_channel():
    """Nothing fools this network and nothing is better, so that the best stays the stripes it began with."""
    network = Counted(lambda x: torch.tensor([[1.0, 0.0]]).repeat(len(x), 1))
    x, y = torch.full((2, 3, 16, 16), 0.5), torch.zeros(2, dtype=torch.long)
    assert torch.equal(square(network, x, y, eps=0.25, n_queries=200, generator=seeded()), x)
    _, stripes, *candidates = network.asked
    assert len(candidates) == 199
    assert torch.equal(stripes, stripes[:, :, :1].expand_as(stripes))
    assert set(stripes.unique().tolist()) == {0.25, 0.75}
    ends = torch.zeros(2, dtype=torch.bool)
    for query, asked in enumerate(candidates, start=1):
        s = side(query, 200, 0.8, 16, 16)
        for sample, start in zip(asked, stripes, strict=True):
            where = (sample != start).any(0).nonzero()
            if not len(where):
                continue
            top, left = where.amin(0).tolist()
            bottom, far = where.amax(0).tolist()
            assert bottom - top < s and far - left < s
            square_of = sample[:, top : bottom + 1, left : far + 1].flatten(1)
            assert (square_of == square_of[:, :1]).all()
            ends |= torch.tensor([bottom == 15, far == 15])
    assert ends.all()  # the last row and column are reached


def test_a_sample_depends_on_its_generator_alone_and_is_asked_no_more_once_it_is_fooled():
    clf, x = tiny(), torch.rand(4, 3, 16, 16)
    y = right(clf, x)
    how = {"eps": [16 / 255, 48 / 255], "n_queries": 20}
    together = square(clf, x, y, generator=[seeded(i) for i in range(4)], **how)
    for i in range(4):
        alone = square(clf, x[i : i + 1], y[i : i + 1], generator=[seeded(i)], **how)
        for adv, one in zip(together, alone, strict=True):
            assert torch.equal(adv[i : i + 1], one)
    again = square(clf, x, y, generator=[seeded(i) for i in range(4)], **how)
    assert all(torch.equal(a, b) for a, b in zip(together, again, strict=True))
    other = square(clf, x, y, generator=[seeded(i + 9) for i in range(4)], **how)
    assert not all(torch.equal(a, b) for a, b in zip(together, other, strict=True))
    network = Counted(plain())
    x = torch.rand(16, 3, 8, 8)
    square(network, x, right(plain(), x), eps=0.3, n_queries=30, generator=seeded())
    counts = [len(asked) for asked in network.asked]
    assert counts == sorted(counts, reverse=True) and counts[-1] < counts[1]


def test_encoded_input_is_served():
    clf, images = tiny(), torch.rand(4, 3, 16, 16)
    x = clf.encode(images)
    y = right(clf.net, x)
    before = {name: buffer.clone() for name, buffer in clf.named_buffers()}
    adv = square(clf.net, x, y, eps=0.4, n_queries=20, generator=seeded())
    assert adv.shape == x.shape and ((adv - x).abs() <= torch.tensor(0.4)).all()
    assert torch.equal(right(clf.net, adv) != y, (adv != x).transpose(0, 1).flatten(1).any(1))
    assert (right(clf.net, adv) != y).any()
    square(clf.net, x, y, eps=0.4, n_queries=5, bn="batch")
    for name, buffer in clf.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_more_queries_fool_more():
    net, x = plain(size=16), torch.rand(64, 3, 16, 16)
    y = right(net, x)
    fooled = [
        int((right(net, square(net, x, y, eps=4 / 255, n_queries=n, generator=seeded())) != y).sum())
        for n in (1, 20, 300)
    ]
    assert fooled[0] < fooled[1] < fooled[2] < 64


def test_the_class_is_the_function_with_its_settings_held():
    net, x = plain(), torch.rand(4, 3, 8, 8)
    y = right(net, x)
    ours = Square(net, eps=0.1, n_queries=9, p_init=0.5, generator=seeded())(x, y)
    assert torch.equal(ours, square(net, x, y, eps=0.1, n_queries=9, p_init=0.5, generator=seeded()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"n_queries": 0}, "n_queries is 0"), ({"p_init": 1.5}, "p_init is 1.5"), ({"p_init": 0}, "p_init is 0")],
)
def test_bad_input_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError) as caught:
        square(plain(), torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), eps=0.1, **wrong)
    assert message in str(caught.value)


def test_what_is_no_picture_and_no_generator_is_refused_before_any_look():
    looks = []
    with pytest.raises(ValueError, match=r"x has shape \[3, 8\], expected images"):
        square(looks.append, torch.rand(3, 8), torch.zeros(3, dtype=torch.long), eps=0.1)
    with pytest.raises(TypeError, match="generator is of type int"):
        pgd(plain(), torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.long), eps=0.1, alpha=0.1, steps=1, generator=5)
    assert not looks
