import dataclasses
import shutil
import sqlite3

import pytest
import torch

from fastsnn import analysis, data
from fastsnn.functional import phase_encode
from fastsnn.report.tables import verdicts as tables
from fastsnn.sweep import LedgerError, Settings, networks, prepare, sweep, verdicts, weights
from fastsnn.sweep.judged import JudgedLedger
from fastsnn.sweep.ledger import FILE
from fastsnn.sweep.plan import Network
from fastsnn.sweep.progress import Silent
from fastsnn.sweep.verdicts import Court

from . import tiny

SETTINGS = {**tiny.SETTINGS, "attacks": ("fgsm",), "eps": (4,)}
COURT = Court(images=5, steps=2, noises=2, noise_images=2, queries=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished sweep over a network with max and one with average pooling, the cache of its weights, and verdicts."""
    folder = tmp_path_factory.mktemp("verdicts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.DATASETS, "few", tiny.load)
        patch.setenv("FASTSNN_CACHE", str(folder / "cache"))
        settings = Settings(**SETTINGS)
        prepare(settings, folder / "swept")
        list(sweep(settings, folder / "swept", Silent()))
        shutil.copytree(folder / "swept", folder / "judged")
        yield folder, judged(folder / "judged")


@pytest.fixture
def out(made, tmp_path, monkeypatch):
    """A copy of the sweep alone, with a cache of its own."""
    for name in ("swept", "cache"):
        shutil.copytree(made[0] / name, tmp_path / name, dirs_exist_ok=True)
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "swept"


def judged(out, court=COURT):
    return list(verdicts.judge(out, court, Silent()))


def kept(out):
    with JudgedLedger.read(out) as ledger:
        return ledger.verdicts()


def test_a_verdict_is_that_of_the_trained_network_with_the_other_pooling_to_transfer_from(made, monkeypatch):
    monkeypatch.setenv("FASTSNN_CACHE", str(made[0] / "cache"))
    train_set, test_set, nets = data.load("few", "train"), data.load("few", "test").first(5), []
    for pool in ("avg", "max"):
        network, how = Network("few", "sew_resnet18", pool, 3407), {"progress": Silent(), "retrain": False}
        net, origin = networks.trained(Settings(**SETTINGS), network, train_set, torch.device("cpu"), **how)
        assert origin["cached"]
        nets.append(net)
    x = phase_encode(test_set.images, tiny.SETTINGS["T"], 8)
    how = {"eps": 6 / 255, "steps": 2, "draws": 2, "search_images": 2, "queries": 3, "seed": 3407}
    expected = analysis.verdict(nets[0], x, test_set.labels, other=nets[1], **how)
    names = [str(one.network) for one in made[1]]
    assert names == ["sew_resnet18 avg 3407", "sew_resnet18 max 3407"]
    assert list(made[1][0].verdict) == list(expected) and made[1][0].verdict.worst == expected.worst


def test_what_is_in_the_ledger_is_not_judged_again_and_another_question_is(made, monkeypatch):
    folder = made[0] / "judged"
    there = kept(folder)
    assert [one["checks"] for one in there] == [[(r.check, r.seen, r.result) for r in one.verdict] for one in made[1]]
    assert [one["conclusion"] for one in there] == [one.verdict.conclusion for one in made[1]]
    asked = []
    monkeypatch.setattr(verdicts, "verdict", lambda *_, **how: asked.append(how["queries"]) or made[1][0].verdict)
    assert [one.verdict for one in judged(folder)] == [None, None] and not asked
    assert kept(folder) == there
    with JudgedLedger.read(folder) as ledger:
        assert len(ledger.runs()) == 2, "the sweep's and the first verdicts': no run for nothing"
    shutil.copytree(folder, made[0] / "again")
    monkeypatch.setenv("FASTSNN_CACHE", str(made[0] / "cache"))
    assert len(judged(made[0] / "again", dataclasses.replace(COURT, queries=4))) == 2
    assert asked == [4, 4] and len(kept(made[0] / "again")) == 4


def test_a_verdict_that_was_cut_short_leaves_nothing_and_the_next_goes_on(out, made, monkeypatch):
    """The first network's verdict is saved before the second is begun; half of the second's is not."""
    begun = []

    def cut_short(*_, **how):
        begun.append(how)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return made[1][0].verdict

    monkeypatch.setattr(verdicts, "verdict", cut_short)
    with pytest.raises(KeyboardInterrupt):
        judged(out)
    assert len(kept(out)) == 1
    assert [one.verdict is None for one in judged(out)] == [True, False]
    assert len(begun) == 3 and len(kept(out)) == 2


def test_checks_of_a_verdict_are_there_all_or_none(out):
    found = analysis.Verdict([analysis.Check("a", "b", "pass"), analysis.Check("c", "d", None)], 1.0, 1.0, 0.1)
    about = {"eps": 6, "alpha": 0.01, "steps": 2, "images": 5}
    with JudgedLedger.write(out) as ledger:
        with pytest.raises(LedgerError, match="NOT NULL"):
            ledger.add_verdict(1, 1, "hash", about, found, 1.0)
        assert ledger.verdicts() == [] and not ledger.has_verdict("hash")


def test_a_sweep_alone_makes_no_tables_of_verdicts(out):
    connection = sqlite3.connect(out / FILE)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert "verdicts" not in names and "checks" not in names and "cells" in names


def test_the_report_shows_the_checks_and_the_conclusion(made):
    with JudgedLedger.read(made[0] / "judged") as ledger:
        shown = tables(ledger, ledger.results())
    assert [table["title"] for table in shown] == [
        f"Masked gradients? few, sew_resnet18, {pool} pooling, seed 3407" for pool in ("avg", "max")
    ]
    for table, one in zip(shown, made[1], strict=True):
        assert table["lines"] == [[row.check, row.result, row.seen] for row in one.verdict]
        assert table["note"].startswith(one.verdict.conclusion) and "5 images, PGD-2 with alpha 0.01" in table["note"]


def test_weights_that_are_gone_or_others_are_refused(out):
    file = next(weights.directory().glob("*-max-few-*"))
    state, description = weights.load(file), weights.description(file)
    weights.save(file, {name: tensor + 1 for name, tensor in state.items()}, description)
    with pytest.raises(FileNotFoundError, match="holds other weights; run the sweep once more"):
        judged(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": 255}, r"eps is 255 \(in 1/255\), expected less than 255"),
        ({"queries": -1}, "queries is -1"),
        ({"noises": 0}, "noises is 0"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Court(**change)


def test_a_folder_without_a_cell_and_too_many_images_are_refused(out, tmp_path):
    with pytest.raises(LedgerError, match="not the folder of a sweep"):
        judged(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(ValueError, match="images is 13, but few has 12 test images"):
        judged(out, dataclasses.replace(COURT, images=13))
