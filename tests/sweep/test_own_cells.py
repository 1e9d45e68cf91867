"""A folder holds what several plans found; a plan's table, CSV and figure show its own cells alone."""

import csv
from pathlib import Path

import pytest
import torch

from fastsnn import cli
from fastsnn.sweep import Ledger, Settings, sweep, weights
from fastsnn.sweep.progress import Silent

from . import tiny

ONE = {"pools": ("max",), "attacks": ("fgsm",), "eps": (4, 16)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def swept(**changes):
    """Run a plan in the folder "out"; return its results, and what its CSV says after every pass."""
    written = []
    for done in sweep(Settings(**(tiny.SETTINGS | ONE | changes)), Path("out"), Silent()):
        if done.cells:
            written.append(in_csv())
    with Ledger.read(Path("out")) as ledger:
        return [dict(row) for row in ledger.results_of_plan()], written


def in_csv():
    return list(csv.DictReader(Path("out/results.csv").read_text().splitlines()))


def test_cells_of_other_plans_are_not_shown_but_kept():
    first, _ = swept()
    for change in ({"epochs": 2}, {"lr": 0.1}, {"train_batch_size": 10}, {"images": 7}):
        own, written = swept(**change)
        assert len(own) == len(in_csv()) == 2 and not {row["cell"] for row in own} & {row["cell"] for row in first}
        ((name, value),) = change.items()
        assert {row[name] for row in own} == {value} and {line[name] for line in in_csv()} == {str(value)}
        assert [len(lines) for lines in written] == [2]
    with Ledger.read(Path("out")) as ledger:
        assert len(ledger.results()) == 2 * 5
    again, written = swept()
    assert again == first and written == [] and {line["epochs"] for line in in_csv()} == {"1"}


def test_a_wider_plan_shows_what_a_narrower_one_computed():
    first, _ = swept(eps=(4,))
    own, _ = swept(eps=(4, 16))
    assert [row["eps_255"] for row in own] == [4, 16] and own[0] == first[0]


def test_another_number_of_threads_is_another_network_and_shown_as_one():
    threads = torch.get_num_threads()
    swept()
    try:
        torch.set_num_threads(threads + 1)
        own, _ = swept()
    finally:
        torch.set_num_threads(threads)
    assert [row["threads"] for row in own] == [threads + 1] * 2


def test_of_two_weights_of_one_training_those_attacked_last_count():
    swept(eps=(4,))
    (file,) = weights.directory().glob("*.safetensors")
    with Ledger.read(Path("out")) as ledger:
        description = ledger.description(1)
    weights.save(file, {name: 2 * tensor for name, tensor in weights.load(file).items()}, description)
    own, _ = swept(eps=(4, 8))
    assert [(row["network"], row["eps_255"]) for row in own] == [(2, 4), (2, 8)]


def test_the_table_at_the_end_shows_this_plans_numbers(capsys):
    flags = [*tiny.FLAGS, "--pool", "max", "--attacks", "fgsm", "--quiet", "--out", "out"]
    assert cli.main(["sweep", *flags, "--images", "7"]) == 0
    alone = capsys.readouterr().out
    assert cli.main(["sweep", *flags, "--epochs", "2"]) == 0
    assert "on 12 test images" in capsys.readouterr().out
    assert cli.main(["sweep", *flags, "--images", "7"]) == 0
    assert capsys.readouterr().out == alone and "on 7 test images" in alone
