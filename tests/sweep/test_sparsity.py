import csv

import pytest
import torch

from fastsnn import analysis, attacks, data
from fastsnn.functional import phase_encode
from fastsnn.sweep import Settings, networks, sparsity, weights
from fastsnn.sweep.plan import Network
from fastsnn.sweep.progress import Silent

from . import tiny

ONE = {**tiny.SETTINGS, "pools": ("max",), "eps": (6,), "batch_size": 5}


def measured(attack="pgd", **how):
    options = {name: how.pop(name) for name in ("per_step", "retrain") if name in how}
    return list(sparsity.measure(Settings(**{**ONE, **how}), attack, Silent(), **options))


@pytest.fixture
def net():
    """The network that a measurement trained and left in the cache, and its test images."""
    settings = Settings(**ONE)
    network = Network("few", "sew_resnet18", "max", 3407)
    found, origin = networks.trained(
        settings, network, data.load("few", "train"), torch.device("cpu"), Silent(), retrain=False
    )
    assert origin["cached"]
    test_set = data.load("few", "test")
    return found, phase_encode(test_set.images, settings.T, settings.K), test_set.labels


@pytest.fixture
def trained():
    return measured()


def test_it_measures_the_trained_network_over_the_steps_of_pgd_on_all_test_images(trained, net):
    ((network, found),) = trained
    assert str(network) == "sew_resnet18 max 3407" and (found.samples, found.passes) == (2 * 12, 2 * 3)
    attack = attacks.PGD(net[0], eps=6 / 255, alpha=0.01, steps=2, generator=torch.Generator().manual_seed(0))
    expected = analysis.gradient_sparsity(net[0], net[1], net[2], attack=attack)
    for row, other in zip(found, expected, strict=True):
        assert row[:3] == other[:3] and row[3:5] == pytest.approx(other[3:5], abs=0.02), "up to the random start"


def test_without_an_attack_and_for_fgsm_it_is_the_gradient_at_the_images(trained, net):
    expected = analysis.gradient_sparsity(*net)
    for attack in ("none", "fgsm"):
        ((_, found),) = measured(attack)
        assert found.samples == 12
        for row, other in zip(found, expected, strict=True):
            assert row[3:5] == other[3:5] and row[7:] == pytest.approx(other[7:], rel=1e-5)


def test_random_starts_do_not_depend_on_the_batch_size(trained):
    ((_, whole),) = measured(batch_size=12)
    for row, other in zip(trained[0].sparsity, whole, strict=True):
        assert row[3:] == pytest.approx(other[3:], rel=1e-4, abs=1e-4)


def test_the_csv_file_holds_every_layer_and_step_of_every_network(tmp_path):
    settings = Settings(**{**ONE, "pools": ("max", "avg"), "images": 5})
    found = list(sparsity.measure(settings, "pgd", Silent(), per_step=True))
    sparsity.write_csv(settings, "pgd", found, tmp_path / "sparsity.csv")
    lines = list(csv.DictReader((tmp_path / "sparsity.csv").open()))
    assert len(lines) == sum(len(one.sparsity) for one in found)
    rows = [(one.network, row) for one in found for row in one.sparsity]
    for line, (network, row) in zip(lines, rows, strict=True):
        assert (line["pool"], line["layer"], line["kind"]) == (network.pool, row.layer, row.kind)
        assert line["t"] == ("" if row.t is None else str(row.t))
        assert (line["zeros_in"] == "") == (row.zeros_in != row.zeros_in)
        assert line["zeros_in"] == "" or float(line["zeros_in"]) == pytest.approx(row.zeros_in)
    about = {"width": "4", "attack": "pgd", "eps_255": "6", "steps": "2", "bn": "frozen", "gradients": "10"}
    assert about.items() <= lines[0].items()
    sparsity.write_csv(settings, "none", found, tmp_path / "none.csv")
    line = next(csv.DictReader((tmp_path / "none.csv").open()))
    assert line["eps_255"] == line["steps"] == line["alpha"] == ""


def test_several_budgets_are_refused():
    for name, values in (("eps", (2, 4)), ("steps", (1, 2)), ("bn", ("frozen", "batch"))):
        with pytest.raises(ValueError, match=f"{name} is .*, expected one value"):
            measured(**{name: values})
    with pytest.raises(ValueError, match="Did you mean 'pgd'"):
        measured("pgdd")
    assert not list(weights.directory().iterdir()), "refused before any work"


def test_a_folder_that_holds_other_things_is_refused(tmp_path):
    (tmp_path / "precious").touch()
    with pytest.raises(FileExistsError, match="neither empty"):
        sparsity.make_folder(tmp_path)
    (tmp_path / sparsity.TABLE).touch()
    sparsity.make_folder(tmp_path)
    sparsity.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
