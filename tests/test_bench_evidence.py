"""The tables of bench.evidence against the ledgers that they are drawn from, counted image by image."""

import contextlib
import dataclasses
import io
import json
import sqlite3

import numpy
import pytest
import torch

from bench import evidence
from bench.over_seeds import OverSeeds
from fastsnn import data
from fastsnn.sweep import Ledger, inputs, networks, plan
from fastsnn.sweep.ledger import Outcome
from fastsnn.sweep.run import missing

from .sweep import tiny

SEEDS, IMAGES = (5, 6, 7), 90
COLUMNS = {"clean": ("fgsm", 6), "FGSM 6": ("fgsm", 6), "PGD-7 6": ("pgd", 6), "FGSM 16": ("fgsm", 16)}
COLUMNS["PGD-7 16"] = ("pgd", 16)
PNG = b"\x89PNG\r\n\x1a\n"


def made_up(sweeps, out):
    """Write ledgers as finished sweeps leave them, with accuracies by chance."""
    draws, cpu = numpy.random.default_rng(0), torch.device("cpu")
    for name, settings in sweeps.items():
        train_set, test_set = (inputs.load(settings, "digits", split) for split in ("train", "test"))
        (out / name).mkdir(parents=True)
        with Ledger.write(out / name) as ledger:
            number = ledger.begin_run(dataclasses.asdict(settings), {}, {})
            for network in plan.networks(settings):
                about, passes = networks.describe(settings, network, train_set, cpu), plan.passes(settings, network)
                clean = draws.random(IMAGES) < draws.random()
                for cells, _ in missing(settings, ledger, test_set, str(network), networks.arithmetic(cpu), passes):
                    right = [draws.random(IMAGES) < draws.random() for _ in cells]
                    outcomes = [Outcome(clean, some, ~some, numpy.zeros(IMAGES, numpy.float32)) for some in right]
                    ledger.add(number, network, about, str(network), cells, outcomes, 1.0)
            ledger.finish_run(number, [row["cell"] for row in ledger.results()])


def by_hand(out, bn, network, column):
    """Return accuracies in the order of the seeds, counted from the images in the ledger."""
    model, pool, defence = next(key for key, name in evidence.NAMES.items() if name == network)
    query = f"""SELECT seed, 100.0 * sum(samples.{"clean_correct" if column == "clean" else "correct"}) / count(*)
        FROM samples JOIN results ON results.cell = samples.cell
        WHERE model = ? AND pool = ? AND defence = ? AND bn = ? AND attack = ? AND eps_255 = ?
        GROUP BY seed ORDER BY seed"""
    with sqlite3.connect(out / model / "ledger.sqlite") as ledger:
        found = ledger.execute(query, (model, pool, defence, bn, *COLUMNS[column])).fetchall()
    return dict(found)


def in_terminal(text, title, protocol):
    """Return the means of one part of a printed table by network and column, without their stars."""
    lines = iter(text[text.index(title) :].splitlines())
    next(line for line in lines if line.endswith(f"{protocol}:"))
    columns, found = next(lines).replace(" 6", "_6").replace(" 16", "_16").split(), {}
    for line in iter(lambda: next(lines, ""), ""):
        if network := line[:26].strip():
            values = [float(value.strip("*")) for value in line[26:].split()]
            found |= {(network, c.replace("_", " ")): v for c, v in zip(columns, values, strict=True)}
    return found


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Return the folder of three finished sweeps with the files, and what was printed."""
    out, sweeps, printed = tmp_path_factory.mktemp("evidence"), evidence.settings(SEEDS, IMAGES), io.StringIO()
    made_up(sweeps, out)
    with contextlib.redirect_stdout(printed):
        evidence.write(sweeps, out)
    return out, printed.getvalue()


@pytest.mark.parametrize("bn", ["drift", "frozen"])
def test_every_number_of_the_tables_is_that_of_the_ledgers(shown, bn):
    folder, out = shown
    assert max(map(len, out.splitlines()[:-1])) <= 80  # the last one is a path
    written = json.loads((folder / "evidence.json").read_text())
    means, differences = (in_terminal(out, title, f'bn="{bn}"') for title in ("Accuracy (%)", "First network less"))
    values = {key: by_hand(folder, bn, *key) for key in means}
    assert set(means) == {(network, column) for network in evidence.NAMES.values() for column in COLUMNS}
    for key, by_seed in values.items():
        assert set(by_seed) == set(SEEDS)
        assert means[key] == pytest.approx(sum(by_seed.values()) / 3, abs=0.051)
        (one,) = (one for one in written["accuracy"] if (one["bn"], one["network"], one["column"]) == (bn, *key))
        assert one["values"] == list(by_seed.values())
        assert (one["least"], one["most"]) == (min(one["values"]), max(one["values"]))
    assert len((folder / "evidence.csv").read_text().splitlines()) == 1 + len(values) // 5 * 4 * 2 * len(SEEDS)
    assert len(differences) == len(evidence.PAIRS) * len(COLUMNS)
    for (pair, column), mean in differences.items():
        first, second = (numpy.mean(list(values[name, column].values())) for name in evidence.PAIRS[pair])
        assert mean == pytest.approx(first - second, abs=0.051)


def test_the_protocols_are_compared_on_the_same_weights(shown):
    folder, out = shown
    flattery = in_terminal(out, "Drifting less frozen", "flatters")
    assert len(flattery) == len(evidence.NAMES) * 4
    for key, mean in flattery.items():
        drift, frozen = (numpy.mean(list(by_hand(folder, bn, *key).values())) for bn in ("drift", "frozen"))
        assert mean == pytest.approx(drift - frozen, abs=0.051)


def test_three_seeds_differ_from_zero_only_where_students_interval_leaves_it_out():
    close, far = OverSeeds((1.0, 2.0, 9.0)), OverSeeds((8.0, 9.0, 10.0))
    assert far.standard_error == pytest.approx(3**-0.5) and far.interval == pytest.approx((6.516, 11.484), abs=1e-3)
    assert far.differs and not close.differs
    assert OverSeeds((-8.0, -9.0, -10.0)).differs
    assert (far - close).values == (7.0, 7.0, 1.0)
    assert not OverSeeds((5.0,)).differs and OverSeeds((5.0,)).as_dict()["standard_error"] is None


def test_a_smoke_run_trains_attacks_and_writes_its_files(tmp_path, monkeypatch, capsys):
    few = {split: tiny.load(split) for split in ("train", "test")}
    monkeypatch.setitem(data.DATASETS, "digits", lambda split: few[split])
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    flags, run = ["--smoke", "--images", "2", "--seeds", "5"], tmp_path / "runs" / "evidence-smoke"
    evidence.main([*flags, "--dry-run"])
    assert capsys.readouterr().out.count("1 networks") == 1 and not run.parent.exists()
    evidence.main(flags)
    out = capsys.readouterr().out
    means = in_terminal(out, "Accuracy (%)", 'bn="frozen"')
    assert means == {key: by_hand(run, "frozen", *key)[5] for key in means}
    assert (run / "evidence.png").read_bytes().startswith(PNG)
    assert "| VGG-11, SNN-RAT | " in (run / "evidence.md").read_text()
    evidence.main(flags)
    assert "train" not in capsys.readouterr().err, "what was finished is not done again"
