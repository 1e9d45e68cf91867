"""Data sets that are files, and event frames, in a sweep."""

import json
import sys
from pathlib import Path

import pytest
import torch

from fastsnn import attacks, cli, data, models, training
from fastsnn.nn import EventFrames
from fastsnn.sweep import Ledger, Settings, inputs, prepare
from fastsnn.sweep.plan import networks

from ..data.published import write_cifar, write_cifar10_dvs

QUICK = {"models": ("sew_resnet18",), "pools": ("max",), "width": 4, "T": 4, "epochs": 1, "batch_size": 5}


def swept(capsys, *flags):
    """Run a sweep of one network and attack from the command line; return its rows, and its samples by eps."""
    quick = ["--pool", "max", "--width", "4", "--T", "4", "--epochs", "1", "--attacks", "fgsm", "--eps", "0,4"]
    assert cli.main(["sweep", *flags, *quick, "--batch-size", "5", "--out", "out"]) == 0
    assert "results.csv" in capsys.readouterr().out
    with Ledger.read(Path("out")) as ledger:
        rows = [dict(row) for row in ledger.results()]
        return rows, {row["eps_255"]: ledger.samples(row["cell"]) for row in rows}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_sweep_takes_cifar_from_a_folder(capsys, monkeypatch, tmp_path):
    write_cifar(monkeypatch, tmp_path / "root", "CIFAR100")
    rows, samples = swept(capsys, "--data", "cifar100", "--root", str(tmp_path / "root"))
    assert [(row["data"], row["images"]) for row in rows] == [("cifar100", 12)] * 2 and set(samples) == {0, 4}
    assert cli.main(["report", "out"]) == 0, "the pictures are taken from the same folder"
    assert (tmp_path / "out" / "figures" / "pictures.png").exists()


def test_a_sweep_takes_event_frames_as_they_are(capsys, monkeypatch, tmp_path):
    write_cifar10_dvs(monkeypatch, tmp_path / "root", events=20_000)
    flags = ["--data", "cifar10_dvs", "--root", str(tmp_path / "root"), "--frame-size", "48"]
    rows, samples = swept(capsys, *flags, "--train-batch-size", "15")
    assert [(row["data"], row["images"], row["T"]) for row in rows] == [("cifar10_dvs", 10, 4)] * 2

    train, test = (data.load("cifar10_dvs", split, tmp_path / "root", T=4, size=48) for split in ("train", "test"))
    torch.manual_seed(3407)
    net = models.sew_resnet18(pool="max", width=4, in_channels=2)
    how = {"epochs": 1, "batch_size": 15, "lr": 3e-3, "schedule": "cosine", "seed": 3407, "encode": EventFrames(4)}
    training.train(net, train.images, train.labels, **how)
    x, y = test.images.transpose(0, 1) / 255, test.labels
    assert x.shape == (4, 10, 2, 48, 48) and 0 < x.mean() < x.max() <= 1
    adv = attacks.fgsm(net, x, y, eps=4 / 255)
    expected = (net(x).argmax(1) == y, net(adv).argmax(1) == y, (adv - x).abs().amax((0, 2, 3, 4)))
    found = [(line[1], line[2], line[4]) for line in samples[4]]
    assert found == list(zip(*(column.tolist() for column in expected), strict=True))
    assert cli.main(["report", "out"]) == 0 and not (tmp_path / "out" / "figures" / "pictures.png").exists()


def test_a_dry_run_of_event_frames_measures_and_writes_nothing(capsys, monkeypatch, tmp_path):
    write_cifar10_dvs(monkeypatch, tmp_path / "root")
    plan = {"data": "cifar10_dvs", "root": str(tmp_path / "root"), "frame_size": 48, "width": 2, "T": 2, "pool": "avg"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plan.items()]
    (tmp_path / "night.toml").write_text("\n".join(lines))
    assert cli.main(["sweep", "night.toml", "--dry-run", "--attacks", "fgsm", "--eps", "2"]) == 0
    assert "1 cells of 1 networks" in capsys.readouterr().out and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["cifar10", "cifar10_dvs"])
def test_a_data_set_that_is_not_there_is_refused_before_any_work(capsys, tmp_path, name):
    assert cli.main(["sweep", "--data", name, "--root", str(tmp_path / "nowhere"), "--out", "out"]) == 2
    assert f"{tmp_path}/nowhere" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_damaged_recording_is_refused_before_any_work(capsys, monkeypatch, tmp_path):
    path = write_cifar10_dvs(monkeypatch, tmp_path) / "bird" / "cifar10_bird_3.aedat"
    path.write_bytes(path.read_bytes()[:-1])
    assert cli.main(["sweep", "--data", "cifar10_dvs", "--root", str(tmp_path), "--out", "out"]) == 2
    assert f"{path} ends within an event" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_missing_torchvision_is_refused_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"fastsnn\[data\]"):
        prepare(Settings(**QUICK, data=("cifar10",)), tmp_path / "out")


def test_images_are_coded_and_have_three_channels_and_events_have_two():
    for name, kind, channels in (("digits", "PhaseEncoder", 3), ("cifar10_dvs", "EventFrames", 2)):
        (network,) = networks(Settings(**QUICK, data=(name,)))
        assert type(inputs.encoder(Settings(**QUICK), network)).__name__ == kind
        assert inputs.channels(network) == channels


def test_a_code_is_not_drawn_from_the_numbers_that_attacks_start_from():
    code, start = inputs.generator(7, torch.device("cpu")), torch.Generator().manual_seed(7)
    assert not torch.isin(torch.rand(100, generator=code), torch.rand(100, generator=start)).any()


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"frame_size": 32}, ValueError, "frame_size is 32, expected one of 128, 64, 48"),
        ({"frame_size": "48"}, TypeError, "frame_size is '48'"),
        ({"root": 7}, TypeError, "root is 7, expected a path as text"),
    ],
)
def test_bad_settings_are_refused(wrong, error, message):
    with pytest.raises(error, match=message):
        Settings(**wrong)
