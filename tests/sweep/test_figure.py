import struct

import pytest

from fastsnn.sweep import figure
from fastsnn.sweep.figure import accuracy_over_eps, wilson

from .test_report import rows


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    [(0, 10, 0.0, 27.75), (5, 10, 23.66, 76.34), (10, 10, 72.25, 100.0), (80, 100, 71.12, 86.66)],
)
def test_wilsons_interval(correct, images, low, high):
    """Against published tables of the interval."""
    assert wilson(correct, images) == pytest.approx((low, high), abs=0.01)


def pgd(**others):
    return [row for row in rows(**others) if row["attack"] == "pgd"]


def labels(axes):
    return [line.get_label() for line in axes.lines]


def test_a_line_for_each_attack_and_pooling():
    (axes,) = accuracy_over_eps(rows()).axes
    assert labels(axes) == [f"{pool} pooling, {attack}" for attack in ("PGD-7", "FGSM") for pool in ("max", "avg")]
    assert list(axes.lines[0].get_ydata()) == [100, 98]


def test_seeds_share_a_line_that_is_their_mean_and_say_so():
    drawn = accuracy_over_eps([*rows(), *rows(seed=1, network=2, accuracy=50.0)])
    (axes,) = drawn.axes
    assert len(axes.lines) == 4 and list(axes.lines[0].get_ydata()) == [75, 74]
    (legend,) = drawn.legends
    assert "means over the seeds 1, 3407" in legend.get_title().get_text().replace("\n", " ")


def test_what_differs_beside_has_panels_of_its_own_and_fgsm_stands_in_each():
    drawn = accuracy_over_eps([*rows(), *pgd(restarts=3), *rows(surrogate="sigmoid:4")])
    assert [axes.get_title() for axes in drawn.axes] == [
        "restarts 1, surrogate atan:2",
        "restarts 1, surrogate sigmoid:4",
        "restarts 3, surrogate atan:2",
    ]
    assert all(sorted(labels(axes)) == sorted(labels(drawn.axes[0])) and len(axes.lines) == 4 for axes in drawn.axes)


def test_the_settings_that_all_share_stand_below():
    (legend,) = accuracy_over_eps(rows()).legends
    text = legend.get_title().get_text().replace("\N{NO-BREAK SPACE}", " ").replace("\n", " ")
    for part in ("T 10", "K 8", "epochs 4", "lr 0.003", "alpha 0.01", "restarts 1", "surrogate atan:2", "Wilson"):
        assert part in text


@pytest.mark.parametrize("steps", [1, 3])
def test_many_lines_have_no_bands(steps):
    some = rows() + [row for k in range(1, steps) for row in pgd(steps=10 * k)]
    drawn = accuracy_over_eps(some)
    assert len(drawn.axes[0].collections) == (4 if steps == 1 else 0)
    assert ("bands" in drawn.legends[0].get_title().get_text()) == (steps == 1)


def crowded():
    """Rows of 24 lines that were once in one panel."""
    some = []
    for surrogate in ("atan:2", "sigmoid:4"):
        some += rows(eps=(0, 4, 16), surrogate=surrogate)
        for steps in (3, 7, 20, 50, 100):
            for restarts in (1, 3):
                some += pgd(eps=(0, 4, 16), surrogate=surrogate, steps=steps, restarts=restarts, bn="drift")
    return some


@pytest.mark.parametrize("some", [rows(), [*rows(), *pgd(restarts=3)], crowded()], ids=["few", "two panels", "crowded"])
def test_no_legend_covers_the_data_and_nothing_is_cut_off(some):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn = accuracy_over_eps(some)
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    (legend,) = drawn.legends
    box = legend.get_window_extent()
    texts = [drawn._suptitle, drawn._supylabel]
    texts += [text for axes in drawn.axes for text in (axes.title, axes.xaxis.label)]
    for axes in drawn.axes:
        shown = axes.get_tightbbox(canvas.get_renderer())
        assert not box.overlaps(shown), "the legend is beside the panels"
        assert not any(shown.overlaps(other.bbox) for other in drawn.axes if other is not axes)
        assert axes.bbox.width > 150 and axes.bbox.height > 150
    for extent in (box, *(text.get_window_extent() for text in texts)):
        assert extent.x0 >= 0 and extent.y0 >= 0 and extent.x1 <= drawn.bbox.x1 and extent.y1 <= drawn.bbox.y1


def test_the_file_is_a_png(tmp_path):
    figure.write(rows(("sew_resnet18", "sew_resnet50")), tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">I", content[16:20])[0] == 150 * 7
