import pytest

from fastsnn.report import published
from fastsnn.report.figures import accuracy_over_eps, wilson

from ..sweep.test_report import rows


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    [(0, 10, 0.0, 27.75), (5, 10, 23.66, 76.34), (10, 10, 72.25, 100.0), (80, 100, 71.12, 86.66)],
)
def test_wilsons_interval(correct, images, low, high):
    """Against published tables of the interval."""
    assert wilson(correct, images) == pytest.approx((low, high), abs=0.01)


def test_a_figure_for_each_network_and_mode_and_a_line_for_each_attack():
    figures = accuracy_over_eps([*rows(("sew_resnet18", "sew_resnet50")), *rows(bn="drift")])
    assert len(figures) == 3
    (axes,) = figures["accuracy-digits-sew_resnet18-16-drift"].axes
    assert [line.get_label() for line in axes.lines] == [
        f"{pool} pooling, {attack}" for pool in ("max", "avg") for attack in ("FGSM", "PGD-7")
    ]
    assert list(axes.lines[0].get_ydata()) == [100, 98]


def test_seeds_share_a_line_that_is_their_mean():
    figures = accuracy_over_eps([*rows(), *rows(seed=1, accuracy=50.0)])
    (axes,) = next(iter(figures.values())).axes
    assert len(axes.lines) == 4 and list(axes.lines[0].get_ydata()) == [75, 74]


def test_the_paper_is_quoted_only_where_the_cell_is_the_same():
    paper = {"data": "cifar10", "width": 64, "eps_255": 6.0}
    of_paper = rows(("sew_resnet50",), eps=(0,), **paper)
    pgd = next(row for row in of_paper if (row["attack"], row["pool"]) == ("pgd", "avg"))
    assert published.beside(pgd, "pgd") == 33.29 and published.beside(pgd, "clean") == 75.28
    for change in ({"eps_255": 8.0}, {"steps": 20}, {"width": 16}, {"T": 8}, {"data": "digits"}, {"coding": "rate"}):
        assert published.beside({**pgd, **change}, "pgd") is None
    assert published.beside({**pgd, "eps_255": 8.0}, "clean") == 75.28
    assert published.beside(pgd, "fgsm") is None
