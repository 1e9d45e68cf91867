import math

import pytest
import torch

from fastsnn.analysis import Attribution, Densities, GradientSNR, SharedZeros, Vulnerability
from fastsnn.report import theorems
from fastsnn.sweep.plan import Network
from fastsnn.sweep.theorems import Extended, Measured

SNR = [GradientSNR(1, 2.0, 10.0, 0.2), GradientSNR(2, -1.0, 20.0, -0.05)]
OWN = GradientSNR(1, 3.0, 6.0, 0.5)


def one(pool="max", seed=1, model="sew_resnet18"):
    numbers = [torch.tensor([float(i + 2), float(i + 3)], dtype=torch.float64) for i in range(8)]
    shares = torch.tensor([0.5, 0.25], dtype=torch.float64)
    layers = (
        ("network", "network"),
        ("conv1", "convolution"),
        ("layer1.0.downsample.0", "convolution"),
        ("fc", "linear"),
    )
    return Measured(
        Network("digits", model, pool, seed),
        Vulnerability(*numbers),
        [*(Extended(2, snr) for snr in SNR), Extended(1, OWN)],
        [SharedZeros("conv1", 0.25, 0.5, -0.5), SharedZeros("fc", 0.0, 0.5, math.nan)],
        Densities(shares, shares / 2, 8.0, shares),
        [Attribution(*layer, 0.6, 0.5, 0.1, -0.2, 0.0, 0.6, -0.2, 0.0) for layer in layers],
    )


def test_every_network_has_a_figure_per_theorem_and_one_of_causes():
    names = list(theorems.figures([one(), one("avg"), one(model="sew_resnet50")]))
    assert len(names) == 10
    assert names[0] == "theorem-4.1-digits-sew_resnet18" and names[-1] == "causes-digits-sew_resnet50"


def test_dots_are_the_measured_over_the_first_order_numbers():
    figure = next(iter(theorems.figures([one()]).values()))
    v = one().vulnerability
    pairs = (
        (v.random_first_order, v.random),
        (v.adversarial_first_order, v.adversarial),
        (v.ratio_first_order, v.ratio),
    )
    for axes, pair in zip(figure.axes, pairs, strict=True):
        assert axes.collections[0].get_offsets().tolist() == torch.stack(pair, 1).tolist()


def test_lines_of_snr_join_the_networks_of_a_kind_and_leave_out_negative_signals():
    left, right = theorems.figures([one()])["theorem-4.2-digits-sew_resnet18"].axes
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in left.get_lines()]
    assert drawn[0] == ([1, 2], [10, 20]) and drawn[1] == ([1, 2], [2, pytest.approx(math.nan, nan_ok=True)])
    assert ([1, 2], [0.5, 0.4]) not in drawn
    ratios = [list(line.get_ydata()) for line in right.get_lines()]
    assert [0.2, -0.05] in ratios and [0.2, 0.4] in ratios, "measured, and what independent steps would give"


def test_zeros_of_weights_stand_over_their_correlation():
    above, below = theorems.figures([one()])["theorem-4.3-digits-sew_resnet18"].axes
    assert list(above.get_lines()[0].get_ydata()) == [25, 0]
    assert list(below.get_lines()[0].get_ydata()) == [-0.5, pytest.approx(math.nan, nan_ok=True)]


def test_densities_lie_under_the_bound():
    (axes,) = theorems.figures([one()])["theorem-4.4-digits-sew_resnet18"].axes
    assert axes.collections[0].get_offsets().tolist() == [[0.25, 0.5], [0.125, 0.25]]
    places, bound = axes.get_lines()[0].get_data()
    assert bound == pytest.approx([min(1, 8 * place) for place in places.tolist()])


def test_causes_have_a_panel_per_network_with_shortcuts_apart():
    axes = theorems.figures([one(), one("avg"), one("avg", seed=2)])["causes-digits-sew_resnet18"].axes
    assert [place.get_title() for place in axes] == [
        "max pooling, seed 1",
        "average pooling, seed 1",
        "average pooling, seed 2",
    ]
    (line, shortcut), places = axes[0].get_lines()[:2], axes[0].get_lines()[:6]
    assert (list(line.get_xdata()), list(shortcut.get_xdata())) == ([0, 2], [1])
    assert [place.get_ydata()[0] for place in places[::2]] == pytest.approx([60, 80, 0])


def test_figures_are_written_as_png_and_pdf(tmp_path):
    written = theorems.write([one(), one("avg")], tmp_path / "figures")
    assert len(written) == 10 and all(path.stat().st_size > 1000 for path in written)
    assert {path.suffix: path.read_bytes()[:4] for path in written} == {".pdf": b"%PDF", ".png": b"\x89PNG"}
