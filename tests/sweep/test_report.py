import csv
import io

import pytest
from rich.console import Console

from fastsnn.sweep import report


def rows(models=("sew_resnet18",), eps=(0, 4), **others):
    return [
        {
            "cell": 1,
            "network": 1,
            "run": 1,
            "data": "digits",
            "model": model,
            "width": 16,
            "pool": pool,
            "seed": 3407,
            "T": 10,
            "K": 8,
            "coding": "phase",
            "epochs": 4,
            "train_batch_size": 32,
            "lr": 0.003,
            "schedule": "cosine",
            "weight_decay": 0.001,
            "optimizer": "adam",
            "flips": "no",
            "train_precision": "fp32",
            "threads": 2,
            "defence": "none",
            "stem": "imagenet",
            "frame_size": None,
            "attack": attack,
            "eps_255": float(budget),
            "steps": 7 if attack == "pgd" else 1,
            "restarts": 1,
            "alpha": 0.01 if attack == "pgd" else None,
            "bn": "frozen",
            "surrogate": "atan:2",
            "precision": "fp32",
            "batch_size": None,
            "torch": "2.14",
            "device": "AVX512",
            "kernels": "avx512",
            "recipe": 1,
            "images": 200,
            "correct": 200 - int(budget),
            "accuracy": 100 - int(budget) / 2,
            "clean_accuracy": 100.0,
            "zero_gradients": 0,
            "seconds": 1.5,
        }
        | others
        for model in models
        for pool in ("max", "avg")
        for attack in ("fgsm", "pgd")
        for budget in eps
    ]


def test_csv_holds_a_line_per_row_with_percentages_and_units(tmp_path):
    report.write_csv(rows(eps=(0, 2.5, 16)), tmp_path / "results.csv")
    lines = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(lines) == 12
    expected = {
        "eps_255": "2.5",
        "steps": "1",
        "alpha": "",
        "correct": "198",
        "accuracy": "99",
        "clean_accuracy": "100",
    }
    assert lines[1] == lines[1] | expected and not {"cell", "network", "run", "seconds"} & lines[1].keys()
    assert lines[1]["epochs"] == "4" and lines[1]["lr"] == "0.003" and lines[1]["torch"] == "2.14"
    assert [lines[5][name] for name in ("attack", "steps", "alpha", "accuracy")] == ["pgd", "7", "0.01", "92"]


def test_lines_are_told_apart_by_what_differs():
    assert report.lines(rows())[0] == ["model", "pool", "attack"], "FGSM's one step is no difference"
    head, found = report.lines([*rows(), *rows(bn="drift"), *rows(steps=20)])
    assert head == ["model", "pool", "attack", "steps", "bn"]
    assert len(found) == 2 * 2 * 2 + 2 * 2


@pytest.mark.parametrize("count", [1, 6, 7, 20])
def test_tables_fit_80_columns_and_leave_nothing_out(count):
    found = rows(("sew_resnet18", "sew_resnet152"), [0.25 + 12 * i for i in range(count)])
    text = io.StringIO()
    console = Console(file=text, width=80)
    for table in report.tables(found):
        console.print(table)
    shown = text.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    words = shown.split()
    for row in found:
        assert f"{row['eps_255']:g}" in words and f"{row['accuracy']:.1f}" in words
    assert "sew_resnet152" in words


OTHERS = {"epochs": 2, "lr": 0.1, "images": 100, "threads": 1, "torch": "2.15", "device": "H100", "recipe": 2}


@pytest.mark.parametrize("name", OTHERS)
def test_no_row_hides_another(name):
    head, found = report.lines([*rows(), *rows(**{name: OTHERS[name]})])
    assert head == ["model", "pool", "attack", name] and len(found) == 2 * 4


def test_networks_that_are_alike_in_all_that_has_a_name_are_told_apart_by_their_number():
    head, found = report.lines([*rows(), *rows(network=2)])
    assert head == ["model", "pool", "attack", "network"] and len(found) == 2 * 4


def test_what_rows_share_is_named():
    text = report.named(report.shared([*rows(), *rows(bn="drift", batch_size=60)]))
    assert "width 16, T 10" in text and "lr 0.003" in text and "steps 7" in text and "batch_size 60" in text
    assert "bn" not in text and "pool" not in text
