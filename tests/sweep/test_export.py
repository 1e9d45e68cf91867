import csv
import importlib.util
import json

import pytest

from fastsnn.sweep import Ledger, export

from .test_ledger import add, cell, outcome


@pytest.fixture
def ledger(tmp_path):
    with Ledger.write(tmp_path) as ledger:
        cells = [cell(4.0, "pgd"), cell(4.0, "fgsm"), cell(8.0, "pgd")]
        add(ledger, cells, [outcome([1, 0, 1, 1]), outcome([1, 1, 0, 1]), outcome([0, 0, 0, 1])])
        yield ledger


def test_csv_holds_cells_and_on_request_samples(ledger, tmp_path):
    file, samples = export.write(ledger, tmp_path / "a.csv", "csv", samples=True)
    rows = list(csv.DictReader(file.open()))
    assert [(row["attack"], row["eps_255"], row["correct"]) for row in rows] == [
        ("fgsm", "4", "3"),
        ("pgd", "4", "3"),
        ("pgd", "8", "1"),
    ]
    lines = list(csv.DictReader(samples.open()))
    assert samples.name == "a-samples.csv" and len(lines) == 12
    assert sum(int(line["correct"]) for line in lines if line["cell"] == rows[2]["cell"]) == 1


def test_json_holds_each_network_and_its_worst_case(ledger, tmp_path):
    (file,) = export.write(ledger, tmp_path / "a.json", "json")
    (network,) = json.loads(file.read_text())
    assert network["model"] == "sew_resnet18" and network["clean_acc"] == 100 and len(network["attacks"]) == 3
    assert network["worst_case"] == [
        {"eps_255": 4.0, "bn": "frozen", "images": 4, "accuracy": 50.0, "attacks": 2},
        {"eps_255": 8.0, "bn": "frozen", "images": 4, "accuracy": 25.0, "attacks": 1},
    ]
    with pytest.raises(ValueError, match="take csv or parquet"):
        export.write(ledger, tmp_path / "a.json", "json", samples=True)


def test_parquet_holds_the_same(ledger, tmp_path):
    pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "fastsnn[parquet]"')
    import pyarrow.parquet

    file, samples = export.write(ledger, tmp_path / "a.parquet", "parquet", samples=True)
    table = pyarrow.parquet.read_table(file).to_pylist()
    assert table == [dict(row) for row in ledger.results()]
    assert pyarrow.parquet.read_table(samples).num_rows == 12


def test_parquet_without_pyarrow_names_the_extra(ledger, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install \"fastsnn\[parquet\]\""):
        export.write(ledger, tmp_path / "a.parquet", "parquet")
    assert not (tmp_path / "a.parquet").exists()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_samples_are_written_in_blocks_and_never_held_all(ledger, tmp_path, monkeypatch, kind):
    pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "fastsnn[parquet]"')
    import pyarrow.parquet

    _, whole = export.write(ledger, tmp_path / f"whole.{kind}", kind, samples=True)
    asked, samples = [], Ledger.samples

    def one_cell_at_a_time(self, cell):
        assert len(asked) < 2 or list(tmp_path.glob(".parts*.tmp")), "nothing is written before the third cell is read"
        asked.append(cell)
        return samples(self, cell)

    monkeypatch.setattr(export, "_BLOCK", 5)
    monkeypatch.setattr(Ledger, "samples", one_cell_at_a_time)
    _, parts = export.write(ledger, tmp_path / f"parts.{kind}", kind, samples=True)
    assert len(asked) == 3 and not list(tmp_path.glob(".parts*.tmp"))
    if kind == "csv":
        assert parts.read_bytes() == whole.read_bytes()
    else:
        assert pyarrow.parquet.read_table(parts).equals(pyarrow.parquet.read_table(whole))
        assert pyarrow.parquet.ParquetFile(parts).num_row_groups == 3


@pytest.mark.parametrize("kind", export.FORMATS)
def test_a_sweep_without_cells_is_exported_empty(tmp_path, kind):
    pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "fastsnn[parquet]"')
    with Ledger.write(tmp_path) as ledger:
        for file in export.write(ledger, tmp_path / f"a.{kind}", kind, samples=kind != "json"):
            assert file.exists()
