import csv

import pytest
import torch

from fastsnn import analysis, data
from fastsnn.functional import phase_encode
from fastsnn.sweep import Settings, networks, theorems, weights
from fastsnn.sweep.plan import Network
from fastsnn.sweep.progress import Silent

from . import tiny

ONE = {**tiny.SETTINGS, "pools": ("max",), "eps": (6,), "images": 5}


def measured(**how):
    options = {name: how.pop(name) for name in ("retrain", "train_each") if name in how}
    return list(theorems.measure(Settings(**{**ONE, **how}), Silent(), **options))


def of_cache(T=4):
    """The network that a measurement trained and left in the cache, and its test images."""
    settings, network = Settings(**{**ONE, "T": T}), Network("few", "sew_resnet18", "max", 3407)
    few = data.load("few", "train")
    net, origin = networks.trained(settings, network, few, torch.device("cpu"), Silent(), retrain=False)
    assert origin["cached"]
    test_set = data.load("few", "test").first(5)
    return net, phase_encode(test_set.images, T, settings.K), test_set.labels


def lines(folder, name):
    return list(csv.DictReader((folder / name).open()))


def test_the_files_hold_what_the_functions_return(tmp_path):
    found = measured()
    theorems.write_csv(Settings(**ONE), found, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == sorted(theorems.TABLES)
    net, x, y = of_cache()
    expected = analysis.vulnerability(net, x, y, 6 / 255, generator=torch.Generator().manual_seed(3407))
    rows = lines(tmp_path, "theorem-4.1.csv")
    assert [row["image"] for row in rows] == list("01234")
    about = {"data": "few", "model": "sew_resnet18", "pool": "max", "seed": "3407", "width": "4", "K": "8", "T": "4"}
    assert (about | {"eps_255": "6"}).items() <= rows[0].items()
    for name, column in expected._asdict().items():
        assert [float(row[name]) for row in rows] == pytest.approx(column.tolist())
    expected = analysis.gradient_snr(net, x, y, T=[1, 2, 4])
    for row, one in zip(lines(tmp_path, "theorem-4.2.csv"), expected, strict=True):
        assert (row["trained_with"], row["T"], row["images"]) == ("4", str(one.T), "5")
        assert [float(row[name]) for name in ("signal", "noise", "snr")] == pytest.approx(one[1:])
    for row, one in zip(lines(tmp_path, "theorem-4.3.csv"), analysis.shared_zeros(net, x, y), strict=True):
        assert row["layer"] == one.layer and float(row["zeros"]) == pytest.approx(one.zeros)
        assert float(row["correlation"] or "nan") == pytest.approx(one.correlation, nan_ok=True)
    expected, rows = analysis.densities(net, x, y), lines(tmp_path, "theorem-4.4.csv")
    for name in ("at_weight", "at_input", "bound"):
        assert [float(row[name]) for row in rows] == pytest.approx(getattr(expected, name).tolist())
    assert [float(row["factor"]) for row in rows] == pytest.approx(5 * [expected.factor])
    for row, one in zip(lines(tmp_path, "causes.csv"), analysis.attribute_zeros(net, x, y), strict=True):
        assert (row["layer"], row["kind"]) == one[:2]
        assert [float(row[name]) for name in one._fields[2:]] == pytest.approx(one[2:])


def test_a_network_is_trained_for_each_number_of_steps_where_asked_for():
    ((_, _, extended, *_),) = measured(train_each=True)
    assert [(row.trained_with, row.snr.T) for row in extended] == [(4, 1), (4, 2), (4, 4), (1, 1), (2, 2)]
    net, x, y = of_cache(T=2)
    (expected,) = analysis.gradient_snr(net, x, y, T=[2])
    assert extended[-1].snr == pytest.approx(expected) and extended[-1].snr != extended[1].snr


@pytest.mark.parametrize(("T", "steps"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (10, [1, 2, 4, 8, 10])])
def test_steps_are_the_powers_of_two_and_the_whole(T, steps):
    assert theorems.steps_up_to(T) == steps


def test_passes_of_several_images_change_nothing_but_the_noise():
    (whole,), (parts,) = measured(), measured(batch_size=2)
    for name in ("random_first_order", "adversarial_first_order", "bound"):
        torch.testing.assert_close(getattr(parts.vulnerability, name), getattr(whole.vulnerability, name))
    for row, other in zip(parts.causes, whole.causes, strict=True):
        assert row[2:] == pytest.approx(other[2:])


def test_the_summary_fits_a_terminal_and_joins_layers_that_show_the_same():
    (one,) = measured()
    text = theorems.summary(Settings(**ONE), one)
    assert max(map(len, text.splitlines())) <= 88
    assert "5 images, eps = 6/255" in text and f"{one.vulnerability.ratio.median().item():,.1f}" in text
    assert "bn1 +1" in text, "neurons and norm of the stem have the same zeros"
    silent = one._replace(causes=[row._replace(zeros=0.0) for row in one.causes])
    assert "no layer's input has zeros" in theorems.summary(Settings(**ONE), silent)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"eps": (2, 4)}, "eps is 2, 4, expected one value"),
        ({"eps": (0,)}, "eps is 0, expected the radius"),
        ({"images": 1}, "images is 1, expected at least 2"),
        ({"images": 13}, "12 test images"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_work(how, message):
    with pytest.raises(ValueError, match=message):
        measured(**how)
    assert not list(weights.directory().iterdir())
