"""The numbers of docs/sparsity.md are those of the files beside it."""

import csv
import statistics
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "sparsity.md").read_text()


def lines(name, **what):
    found = [line for line in csv.DictReader((DOCS / "results" / name).open()) if what.items() <= line.items()]
    assert found, (name, what)
    return found


def published(label):
    """Return the cells of the one table row that begins with a label."""
    (row,) = (line for line in TEXT.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


def medians(name, column, form):
    return [
        format(statistics.median_low([float(line[column]) for line in lines(name, pool=pool)]), form)
        for pool in ("max", "avg")
    ]


@pytest.mark.parametrize(
    ("label", "column", "form"),
    [
        ("4.1 rho_adv / rho_rand, measured (logit)", "ratio", ",.1f"),
        ("4.1 the same to first order", "ratio_first_order", ",.0f"),
        ("4.1 bound 3 * abs(g)_0", "bound", ",.0f"),
    ],
)
def test_theorem_4_1(label, column, form):
    assert published(label)[1:3] == medians("theorem-4.1.csv", column, form)


@pytest.mark.parametrize(
    ("label", "own"),
    [("4.2 SNR at T = 1, 2, 4, of the network of T = 10", False), ("4.2 SNR at T = 1, 2, 4, trained so", True)],
)
def test_theorem_4_2(label, own):
    for cell, pool in zip(published(label)[1:3], ("max", "avg"), strict=True):
        for shown, T in zip(cell.split(", "), ("1", "2", "4"), strict=True):
            (line,) = lines("theorem-4.2.csv", pool=pool, T=T, trained_with=T if own else "10")
            assert shown == f"{float(line['snr']):.4f}"


def test_theorems_4_3_and_4_4():
    found = [float(line["correlation"]) for line in lines("theorem-4.3.csv", pool="max") if line["correlation"]]
    label = "4.3 correlation of zeros at x and in weight gradients, layers where both vary"
    assert published(label)[1] == f"{min(found):.2f} to {max(found):.2f}"
    assert not any(line["correlation"] for line in lines("theorem-4.3.csv", pool="avg"))
    label = "4.4 density of the first weight gradient; of the input gradient; factor"
    for cell, pool in zip(published(label)[1:3], ("max", "avg"), strict=True):
        some = lines("theorem-4.4.csv", pool=pool)
        for shown, name in zip(cell.replace(",", "").split("; "), ("at_weight", "at_input", "factor"), strict=True):
            assert float(shown) == pytest.approx(statistics.median(float(line[name]) for line in some), rel=5e-4)


@pytest.mark.parametrize(
    ("label", "layer"),
    [
        ("x", "network"),
        ("stem: batch norm, neuron", "bn1"),
        ("stem: batch norm, neuron", "sn1"),
        ("max pool", "maxpool"),
        ("1x1 shortcut convolutions, stride 2", "layer2.0.downsample.0"),
    ],
)
def test_causes(label, layer):
    (line,) = lines("causes.csv", pool="max", layer=layer)
    names = ("zeros", "max_pool", "stride", "neuron", "architectural", "natural", "left")
    assert published(label) == [f"{100 * float(line[name]):.2f}" for name in names]
