import csv
import io
import struct

import pytest
from rich.console import Console

from fastsnn.sweep import Cell, Row, Settings, report


def rows(settings):
    return [
        Row(Cell(model, pool, attack, eps), 200, 200 - int(eps), 200)
        for model in settings.models
        for pool in settings.pools
        for attack in settings.attacks
        for eps in settings.eps
    ]


def test_csv_holds_a_line_per_row_with_percentages_and_units(tmp_path):
    settings = Settings(eps=(0, 2.5, 16))
    report.write_csv(rows(settings), settings, tmp_path / "results.csv")
    lines = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(lines) == 12
    assert lines[1] == {
        "data": "digits",
        "model": "sew_resnet18",
        "width": "16",
        "pool": "max",
        "attack": "fgsm",
        "eps_255": "2.5",
        "steps": "1",
        "alpha": "",
        "bn": "frozen",
        "precision": "fp32",
        "seed": "3407",
        "images": "200",
        "correct": "198",
        "accuracy": "99.00",
        "clean_accuracy": "100.00",
    }
    assert (lines[5]["attack"], lines[5]["steps"], lines[5]["alpha"], lines[5]["accuracy"]) == (
        "pgd",
        "7",
        "0.01",
        "92.00",
    )


@pytest.mark.parametrize("count", [1, 6, 7, 20])
def test_tables_fit_80_columns_and_leave_nothing_out(count):
    settings = Settings(models=("sew_resnet18", "sew_resnet152"), eps=tuple(0.25 + 12 * i for i in range(count)))
    text = io.StringIO()
    console = Console(file=text, width=80)
    for table in report.tables(rows(settings)):
        console.print(table)
    shown = text.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    words = shown.split()
    for row in rows(settings):
        assert f"{row.cell.eps:g}" in words and f"{row.correct / 2:.1f}" in words
    assert "sew_resnet152" in words


@pytest.mark.parametrize("models", [("sew_resnet18",), ("sew_resnet18", "sew_resnet50")])
def test_the_figure_is_a_png_that_grows_with_the_models(tmp_path, models):
    settings = Settings(models=models)
    report.write_figure(rows(settings), settings, tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">I", content[16:20])[0] == pytest.approx(150 * (1.6 + 4.4 * len(models)), abs=1)
