import pytest

from fastsnn.analysis import LayerGradient, Sparsity
from fastsnn.report import sparsity
from fastsnn.sweep.plan import Network
from fastsnn.sweep.sparsity import Measured


def row(layer, kind, zeros_in, zeros_out=0.0, underflow=0.0):
    return LayerGradient(layer, kind, None, zeros_in, zeros_out, zeros_in - underflow, zeros_out, 1, 1, 2, 2, 3, 3)


def one(pool="max", seed=1, zeros=0.5, underflow=0.0, model="sew_resnet18"):
    kind = {"max": "max pool", "avg": "average pool"}[pool]
    rows = [
        row("network", "network", zeros / 4),
        row("conv1", "convolution", 0.1),
        row("bn1", "batch norm", 0.2),
        row("sn1", "neuron", 0.4, 0.2, underflow),
        row("maxpool", kind, zeros),
        row("layer1.0.downsample.0", "convolution", 0.75),
        row("layer1.0.sn1", "neuron", 0.0),
        row("layer1.0.junction", "junction", 0.0),
        row("fc", "linear", 0.0),
    ]
    return Measured(Network("digits", model, pool, seed), Sparsity([*rows, rows[1]._replace(t=0)]))


def bars(figure):
    (axes,) = figure.axes
    return {bar.get_label(): [patch.get_height() for patch in bar.patches] for bar in axes.containers}


def test_bars_are_means_of_both_sides_over_the_layers_of_a_kind():
    figures = sparsity.figures([one(), one("avg", zeros=0.0)])
    assert list(figures) == ["sparsity-by-kind-digits-sew_resnet18", "sparsity-along-depth-digits-sew_resnet18"]
    found = bars(figures["sparsity-by-kind-digits-sew_resnet18"])
    assert found["max pooling"] == pytest.approx([12.5, 100 * 0.85 / 4, 10, 15, 0, 25])
    assert found["average pooling"] == pytest.approx([0, 100 * 0.85 / 4, 10, 15, 0, 0])
    assert not any("underflow" in name for name in found)


def test_the_papers_numbers_stand_beside_the_bars():
    (figure, _) = sparsity.figures([one(), one("avg")]).values()
    assert {text.get_text() for text in figure.axes[0].texts} >= {"29.01", "37.88", "16.52"}
    (only_avg, _) = sparsity.figures([one("avg")]).values()
    assert "37.88" not in {text.get_text() for text in only_avg.axes[0].texts}


def test_underflow_is_hatched_where_there_is_some():
    (figure, _) = sparsity.figures([one(underflow=0.4)]).values()
    assert bars(figure)["of which underflow (max)"] == pytest.approx([0, 0, 0, 10, 0, 0])


def test_seeds_are_averaged_and_networks_have_figures_of_their_own():
    figures = sparsity.figures([one(seed=1, zeros=0.2), one(seed=2, zeros=0.6), one(model="sew_resnet50")])
    assert len(figures) == 4
    assert bars(figures["sparsity-by-kind-digits-sew_resnet18"])["max pooling"][5] == pytest.approx(20)


def test_along_the_depth_shortcuts_stand_apart_and_steps_are_left_out():
    (_, figure) = sparsity.figures([one()]).values()
    line, shortcut, *_ = figure.axes[0].get_lines()
    assert list(line.get_ydata()) == pytest.approx([10, 20, 40, 50, 0, 0, 0])
    assert (list(shortcut.get_xdata()), list(shortcut.get_ydata())) == ([4], [75])


def test_figures_are_written_as_png_and_pdf(tmp_path):
    written = sparsity.write([one(), one("avg")], tmp_path / "figures")
    assert sorted(path.suffix for path in written) == [".pdf", ".pdf", ".png", ".png"]
    heads = {path.suffix: path.read_bytes()[:4] for path in written}
    assert heads == {".pdf": b"%PDF", ".png": b"\x89PNG"}
