"""Networks, codings and defences go together: of each there is one in some command that trains, attacks and records."""

import pytest
import torch

from fastsnn import cli, data
from fastsnn.models import BUILDERS
from fastsnn.nn import ENCODERS
from fastsnn.sweep import Ledger
from fastsnn.training import DEFENCES

COMBINED = [
    ("sew_resnet50", "phase", "hire:learned=1"),
    ("spiking_resnet18", "rate", "snn_rat"),
    ("vgg11", "latency", "sparse_gradient"),
    ("wrn16_4", "direct", "mixed_rat"),
    ("vgg11", "phase", "hire"),
    ("wrn16_4", "rate", "none"),
]


def few(split):
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return data.Dataset(images, torch.arange(8), tuple("0123456789"), "few", split)


def test_every_coding_and_defence_is_among_them():
    models, codings, defences = (set(names) for names in zip(*COMBINED, strict=True))
    assert models <= set(BUILDERS) and codings == set(ENCODERS)
    assert {name.partition(":")[0] for name in defences} == set(DEFENCES)


@pytest.mark.parametrize(("model", "coding", "defence"), COMBINED)
def test_one_command_trains_attacks_and_records(monkeypatch, tmp_path, model, coding, defence):
    monkeypatch.setitem(data.DATASETS, "few", few)
    flags = ["--data", "few", "--models", model, "--coding", coding, "--defence", defence, "--pool", "avg"]
    flags += ["--width", "2", "--T", "2", "--epochs", "1", "--train-batch-size", "4", "--images", "4", "--quiet"]
    flags += ["--eps", "4", "--steps", "1", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert cli.main(["sweep", *flags]) == 0
    with Ledger.read(tmp_path / "out") as ledger:
        rows = ledger.results()
    assert [(row["model"], row["coding"], row["defence"]) for row in rows] == [(model, coding, defence)] * 2
    assert {(row["attack"], row["images"]) for row in rows} == {("fgsm", 4), ("pgd", 4)}
