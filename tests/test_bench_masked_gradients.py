import csv
from pathlib import Path

import pytest

from bench import masked_gradients
from fastsnn import cli, data

from .sweep import tiny

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A small sweep of the same kind, by the same three commands."""
    monkeypatch.setitem(data.DATASETS, "few", tiny.load)
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "question"
    flags = [
        "sweep",
        "--data",
        "few",
        "--width",
        "4",
        "--T",
        "2",
        "--epochs",
        "1",
        "--train-batch-size",
        "20",
        "--quiet",
    ]
    flags += ["--out", str(out)]
    both = [*flags, "--seed", "3407,1", "--bn", "frozen,drift"]
    assert cli.main([*both, "--eps", "0"]) == 0
    assert cli.main([*both, "--eps", "6", "--surrogate", "atan:2,atan:8"]) == 0
    assert cli.main([*flags, "--eps", "6", "--attacks", "pgd", "--steps", "9"]) == 0
    return out


def test_the_table_holds_the_means_of_the_ledgers_cells_and_the_file_its_results(folder, tmp_path, capsys):
    capsys.readouterr()
    assert masked_gradients.main([str(folder), "--out", str(tmp_path / "masked.csv")]) == 0
    out = capsys.readouterr().out
    assert cli.main(["export", str(folder), "--out", str(tmp_path / "export.csv")]) == 0
    assert (tmp_path / "masked.csv").read_bytes() == (tmp_path / "export.csv").read_bytes()
    capsys.readouterr()
    lines = list(csv.DictReader((tmp_path / "masked.csv").open()))
    row = next(line for line in out.splitlines() if line.startswith("| atan:8 |"))
    for cell, (pool, bn) in zip(row.split(" | ")[1:], masked_gradients.COLUMNS, strict=True):
        for shown, attack in zip(cell.rstrip(" |").split(" / "), ("fgsm", "pgd"), strict=True):
            what = {"pool": pool, "bn": bn, "surrogate": "atan:8", "attack": attack, "eps_255": "6"}
            found = [float(line["accuracy"]) for line in lines if what.items() <= line.items()]
            assert len(found) == 2 and shown == f"{sum(found) / 2:.1f}"
    assert "max, frozen, seed 3407: PGD-7 " in out and "PGD-9 " in out
    assert masked_gradients.main([str(tmp_path / "masked.csv")]) == 0
    assert capsys.readouterr().out == out, "the same from the file"


def test_the_committed_results_give_the_published_table(capsys):
    assert masked_gradients.main([str(DOCS / "results" / "masked-gradients.csv")]) == 0
    table, longer = capsys.readouterr().out.split("\n\n")
    assert table in (DOCS / "sparsity.md").read_text()
    assert longer.splitlines()[0] == "max, frozen, seed 3407: PGD-7 93.6, PGD-50 94.2"


def test_what_is_missing_is_told(tmp_path, capsys):
    file = tmp_path / "some.csv"
    file.write_text("pool,bn\nmax,frozen\n")
    assert masked_gradients.main([str(file)]) == 2
    assert "has no column accuracy, attack, eps_255" in capsys.readouterr().err
    whole = (DOCS / "results" / "masked-gradients.csv").read_text().splitlines()
    file.write_text("\n".join(line for line in whole if ",drift," not in line))
    assert masked_gradients.main([str(file)]) == 2
    assert "there is no cell with pool max, bn drift, surrogate atan:2" in capsys.readouterr().err
    file.write_text("\n".join([*whole, whole[1]]))
    assert masked_gradients.main([str(file)]) == 2
    assert "several cells" in capsys.readouterr().err
    assert masked_gradients.main([str(tmp_path / "none.csv")]) == 2
