"""`fastsnn train`: what it leaves, and that a run which was stopped ends as one which was not."""

import csv
import json
import signal
import time

import pytest
import safetensors.torch
import torch

from fastsnn import cli, models
from fastsnn.nn import PhaseEncoder
from fastsnn.sweep import Ledger, Settings, networks, plan, weights
from fastsnn.sweep.report import differing
from fastsnn.sweep.training_run import best, folder_of
from fastsnn.training import evaluate, neurons_for

from . import tiny
from .processes import Command

FLAGS = ["--data", "few", "--width", "4", "--T", "3", "--train-batch-size", "20", "--seed", "7", "--quiet"]
FLAGS += ["--out", "out"]
NAME = "few-sew_resnet18-max-7"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(*flags):
    return cli.main(["train", *FLAGS, *map(str, flags)])


def tensors(folder, name):
    found = safetensors.torch.load_file(folder / f"{name}.safetensors")
    found.pop("random.torch", None)  # the process's own, from which nothing here draws
    return found


def log(folder):
    return [row for row in csv.DictReader((folder / "log.csv").open())]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_weights_load_into_the_network_and_do_as_well_as_the_log_says(tmp_path):
    assert train("--epochs", 2, "--robust", "--steps", 2) == 0
    found = tmp_path / "out" / NAME
    rows = log(found)
    assert [row["epoch"] for row in rows] == ["1", "2"] and all(row["robust_accuracy"] for row in rows)
    test_set = tiny.load("test")
    net = models.BUILDERS["sew_resnet18"](pool="max", num_classes=10, width=4)
    net.load_state_dict(tensors(found, "latest"))
    encode = PhaseEncoder(3)
    accuracy = evaluate(net, test_set.images, test_set.labels, encode=encode)
    assert accuracy == pytest.approx(float(rows[-1]["accuracy"]))
    about = json.loads((found / "training.json").read_text())
    assert about["epochs_done"] == 2 and about["training"]["batch_size"] == 20 and about["training"]["flips"] is True
    assert weights.description(found / "best.safetensors")["epochs_done"] == about["best"]["epoch"]
    assert (found / "checkpoint.safetensors").exists() and not (found / "tensorboard").exists()


def test_epochs_that_were_not_scored_under_attack_are_told(capsys):
    assert train("--epochs", 1) == 0
    capsys.readouterr()
    assert train("--epochs", 2, "--robust", "--steps", 2, "--progress", "lines") == 0
    assert "1 of those were scored without PGD, and are not scored again" in capsys.readouterr().err


def test_the_best_epoch_is_the_first_of_the_most_accurate_under_attack_if_there_is_one():
    rows = [{"accuracy": a, "robust_accuracy": r} for a, r in ((0.9, 0.1), (0.5, 0.4), (0.6, 0.4))]
    assert best(rows) is rows[1]
    assert best([row | {"robust_accuracy": None} for row in rows])["accuracy"] == 0.9


def test_more_epochs_go_on_from_the_last_bit_for_bit(tmp_path):
    how = ("--defence", "mixed_rat", "--coding", "rate")
    name = f"{NAME}-rate-mixed_rat"
    assert train("--epochs", 1, *how) == 0 and train("--epochs", 3, *how) == 0
    assert train("--epochs", 3, "--out", "whole", *how) == 0
    for file in ("latest", "best", "checkpoint"):
        assert same(tensors(tmp_path / "out" / name, file), tensors(tmp_path / "whole" / name, file))
    rows = [[{**row, "seconds": 0} for row in log(tmp_path / out / name)] for out in ("out", "whole")]
    assert rows[0] == rows[1] and len(rows[0]) == 3


def test_a_killed_run_loses_at_most_one_epoch_and_ends_with_the_same_bits(tmp_path):
    flags = ["--width", "2", "--T", "2", "--train-batch-size", "240", "--epochs", "3", "--schedule", "cosine"]
    flags += ["--images", "60", "--progress", "lines"]
    whole = Command(["train", *flags, "--out", "whole"], tmp_path / "whole.txt")
    found = tmp_path / "killed" / "digits-sew_resnet18-max-3407"
    process = Command(["train", *flags, "--out", "killed"], tmp_path / "killed.txt")
    process.says("epoch 2/3: 1437 images\n")
    time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert len(log(found)) in (1, 2)
    last = Command(["train", *flags, "--out", "killed"], tmp_path / "last.txt")
    assert last.wait() == 0 and "goes on after epoch" in last.said()
    assert whole.wait() == 0
    for file in ("latest", "best", "checkpoint"):
        assert same(tensors(found, file), tensors(tmp_path / "whole" / found.name, file))
    assert [row["loss"] for row in log(found)] == [row["loss"] for row in log(tmp_path / "whole" / found.name)]


def test_a_sweep_attacks_what_was_trained_and_trains_nothing(tmp_path, capsys):
    assert train("--epochs", 1, "--defence", "snn_rat:eps=4") == 0
    file = tmp_path / "out" / f"{NAME}-snn_rat-eps-4" / "latest.safetensors"
    flags = ["--eps", "0,4", "--steps", "2", "--attacks", "pgd", "--out", "swept", "--progress", "lines"]
    assert cli.main(["sweep", "--weights", str(file), *flags]) == 0
    assert f"weights from {file}" in capsys.readouterr().err
    with Ledger.read(tmp_path / "swept") as ledger:
        rows = [dict(row) for row in ledger.results()]
        about = ledger.description(rows[0]["network"])
    assert {(row["data"], row["width"], row["T"], row["seed"], row["defence"]) for row in rows} == {
        ("few", 4, 3, 7, "snn_rat:eps=4")
    }
    assert about["sha256"] == weights.checksum(weights.load(file)) and about["epochs_done"] == 1
    assert not list((tmp_path / "cache" / "weights").glob("*"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--pool avg", "pools is ('avg',), but {} was trained with ('max',)"),
        ("--defence hire", "defences is ('hire',), but {} was trained with ('none',)"),
        ("--coding rate", "codings is ('rate',), but {} was trained with ('phase',)"),
        ("--stem cifar", "stems is ('cifar',), but {} was trained with ('imagenet',)"),
        ("--train-precision bf16", "train_precision is 'bf16', but {} was trained with 'fp32'"),
        ("--optimizer sgd", "optimizer is 'sgd', but {} was trained with 'adam'"),
        ("--no-flips", "flips is False, but {} was trained with True"),
    ],
)
def test_weights_that_were_trained_otherwise_are_refused(tmp_path, capsys, flags, said):
    file = tmp_path / "latest.safetensors"
    settings = Settings(**tiny.SETTINGS | {"pools": ("max",), "flips": True})
    (network,) = plan.networks(settings)
    described = networks.describe(settings, network, tiny.load("train"), torch.device("cpu"))
    weights.save(file, networks.untrained(settings, network, 10).state_dict(), described)
    assert cli.main(["sweep", "--weights", str(file), "--out", "swept", "--quiet", *flags.split()]) == 2
    assert said.format(file) in capsys.readouterr().err
    assert cli.main(["sweep", "--weights", str(tmp_path), "--out", "swept", "--quiet"]) == 2
    assert f"{tmp_path} is a folder; name a file of weights" in capsys.readouterr().err


def test_the_stem_for_small_images_is_trained_attacked_and_shown(tmp_path):
    assert train("--epochs", 1, "--stem", "cifar") == 0
    file = tmp_path / "out" / NAME.replace("max", "cifar-stem") / "latest.safetensors"
    assert weights.load(file)["conv1.weight"].shape[2:] == (3, 3)
    flags = ["--eps", "4", "--attacks", "fgsm", "--images", "4", "--quiet", "--out", "swept"]
    assert cli.main(["sweep", "--weights", str(file), *flags]) == 0
    assert cli.main(["report", "swept"]) == 0
    with Ledger.read(tmp_path / "swept") as ledger:
        (row,) = ledger.results()
        assert (row["stem"], row["pool"]) == ("cifar", "none")
        assert ledger.description(row["network"])["stem"] == "cifar"


def test_learned_thresholds_and_leaks_are_saved_and_attacked(tmp_path):
    assert train("--epochs", 1, "--defence", "hire:learned=1", "--lr", 0.05) == 0
    file = tmp_path / "out" / f"{NAME}-hire-learned-1" / "latest.safetensors"
    state = weights.load(file)
    assert state["sn1.leak"] != 1 or state["sn1.threshold"] != 1
    flags = ["--eps", "0", "4", "--attacks", "fgsm", "--quiet", "--out", "swept", "--images"]
    assert cli.main(["sweep", "--weights", str(file), *flags, "12"]) == 0
    net = neurons_for(models.sew_resnet18("max", width=4), "hire:learned=1")
    net.load_state_dict(state)
    test_set = tiny.load("test")
    with Ledger.read(tmp_path / "swept") as ledger:
        (clean, _) = ledger.results()
    score = evaluate(net, test_set.images, test_set.labels, encode=PhaseEncoder(3))
    assert clean["defence"] == "hire:learned=1" and clean["correct"] == round(12 * score)


def test_the_precision_of_training_is_kept_with_the_weights_and_never_mixed(tmp_path, capsys):
    assert train("--epochs", 1, "--precision", "bf16") == 0
    file = tmp_path / "out" / NAME / "latest.safetensors"
    assert weights.settings_of(file)["train_precision"] == "bf16"
    capsys.readouterr()
    assert train("--epochs", 2) == 2
    assert "train_precision was 'bf16' and is now None" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        train("--precision", "fp17")


def test_how_networks_were_trained_tells_their_rows_apart_in_tables_files_and_figures(tmp_path, capsys):
    assert train("--epochs", 1) == 0  # in fp32, by Adam, with flips
    assert train("--epochs", 1, "--precision", "bf16", "--optimizer", "sgd", "--no-flips", "--out", "other") == 0
    flags = ["--eps", "4", "--attacks", "fgsm", "--images", "4", "--quiet", "--out", "swept"]
    for out in ("out", "other"):
        assert cli.main(["sweep", "--weights", str(tmp_path / out / NAME / "latest.safetensors"), *flags]) == 0
    with Ledger.read(tmp_path / "swept") as ledger:
        rows = ledger.results()
    how = ("optimizer", "flips", "train_precision")
    assert {tuple(row[name] for name in how) for row in rows} == {("adam", "yes", "fp32"), ("sgd", "no", "bf16")}
    assert differing(rows) == list(how)
    assert cli.main(["export", "swept", "--format", "csv"]) == 0
    (first, *_) = csv.DictReader((tmp_path / "swept" / "export.csv").open())
    assert [first[name] for name in how] == [rows[0][name] for name in how]
    assert cli.main(["report", "swept", "--no-pictures"]) == 0
    assert "<th>train_precision</th>" in (tmp_path / "swept" / "report.html").read_text()


def test_weights_of_the_published_stem_are_found_as_before(tmp_path):
    settings = Settings(**tiny.SETTINGS)
    described = networks.describe(settings, plan.networks(settings)[0], tiny.load("train"), torch.device("cpu"))
    assert not {"stem", "stems", "train_precision"} & {*described, *described["training"]}


def test_a_sweep_trains_with_a_defence_by_name(tmp_path, capsys):
    flags = [*tiny.FLAGS, "--pool", "avg", "--attacks", "fgsm", "--defence", "none,hire", "--out", "swept", "--quiet"]
    assert cli.main(["sweep", *flags, "--dry-run"]) == 0
    assert "6 cells of 2 networks" in capsys.readouterr().out
    assert cli.main(["sweep", *flags]) == 0
    with Ledger.read(tmp_path / "swept") as ledger:
        assert [row["defence"] for row in ledger.results()] == ["hire"] * 3 + ["none"] * 3


def test_scalars_are_those_of_the_log(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert train("--epochs", 1, "--tensorboard") == 0 and train("--epochs", 2, "--tensorboard") == 0
    found = tmp_path / "out" / NAME
    events = reader.EventAccumulator(str(found / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["accuracy", "loss", "lr"]
    for name in ("loss", "accuracy"):
        assert [e.value for e in events.Scalars(name)] == pytest.approx([float(row[name]) for row in log(found)])
        assert [e.step for e in events.Scalars(name)] == [1, 2]


def test_another_training_in_the_folder_is_refused(tmp_path, capsys):
    assert train("--epochs", 1) == 0
    before = (tmp_path / "out" / NAME / "checkpoint.safetensors").read_bytes()
    assert train("--epochs", 1, "--lr", 0.5) == 2
    assert "is of another training: lr was 0.001 and is now 0.5; name another --out" in capsys.readouterr().err
    assert (tmp_path / "out" / NAME / "checkpoint.safetensors").read_bytes() == before


def test_what_cannot_be_used_is_refused_before_any_work(tmp_path, capsys):
    assert train("--epochs", 1) == 0
    found = tmp_path / "out" / NAME
    (tmp_path / "text.safetensors").write_text("no weights")
    wrong = [
        (["sweep", "--weights", "nowhere.safetensors"], "nowhere.safetensors does not exist"),
        (["sweep", "--weights", "text.safetensors"], "no file of trained weights"),
        (["sweep", "--weights", str(found / "checkpoint.safetensors")], "name latest.safetensors"),
        (["sweep", "--weights", str(found / "latest.safetensors"), "--width", "8"], "width is 8, but"),
        (["train", *FLAGS, "--defence", "snnrat"], "Did you mean 'snn_rat'"),
        (["train", *FLAGS, "--optimizer", "adan"], "Did you mean 'adam'"),
        (["train", *FLAGS, "--images", "13"], "images is 13, but few has 12 test images"),
        (["train", *FLAGS, "--eps", "2,4"], "eps is 2.0, 4.0, expected one value"),
    ]
    for argv, message in wrong:
        assert cli.main(argv) == 2
        assert message in capsys.readouterr().err
    (found / "checkpoint.safetensors").write_bytes((found / "checkpoint.safetensors").read_bytes()[:-9])
    assert train("--epochs", 2) == 2
    assert f"out/{NAME}/checkpoint.safetensors is no file" in capsys.readouterr().err


def test_folders_have_plain_names(tmp_path):
    from fastsnn.sweep import Network

    network = Network("digits", "vgg11", "avg", 1, "rate", "snn_rat:eps=4:beta=0.1")
    assert folder_of(tmp_path, network).name == "digits-vgg11-avg-1-rate-snn_rat-eps-4-beta-0.1"
