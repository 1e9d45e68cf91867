import pytest

from fastsnn.report.tables import poolings, throughput, worst_case
from fastsnn.sweep import Ledger

from ..sweep.test_ledger import add, cell, outcome
from ..sweep.test_report import rows

RUNS = [{"id": 1, "machine": {"processor": "A", "threads": 2}}, {"id": 2, "machine": {"gpus": ["B"], "threads": 2}}]


def by_head(table):
    return [dict(zip(table["head"], line, strict=True)) for line in table["lines"]]


def of(attack, **others):
    """Return one row: max pooling at 4/255."""
    return [row for row in rows(eps=(4,), **others) if (row["pool"], row["attack"]) == ("max", attack)]


def pgd(**others):
    return of("pgd", **others)


def test_restarts_and_alphas_are_never_averaged():
    """One and three restarts of one network gave 55.0 and 47.5, and were shown as 51.25."""
    some = [*pgd(accuracy=55.0), *pgd(restarts=3, accuracy=47.5), *pgd(restarts=3, alpha=0.02, accuracy=40.0)]
    some += of("fgsm", accuracy=60.0)
    lines = [(line["attack"], line["restarts"], line["alpha"], line["max"]) for line in by_head(poolings(some))]
    assert lines[:3] == [("PGD-7", 1, "0.01", "55.00"), ("PGD-7", 3, "0.01", "47.50"), ("PGD-7", 3, "0.02", "40.00")]
    assert lines[3] == ("FGSM", "", "", "60.00"), "which has neither"


@pytest.mark.parametrize("change", [{"epochs": 2}, {"images": 100}, {"threads": 1}, {"torch": "2.15"}])
def test_what_was_trained_or_measured_otherwise_is_another_line(change):
    some = [*pgd(accuracy=55.0), *pgd(network=2, accuracy=47.5, **change)]
    table = poolings(some)
    assert table["note"] == "Accuracy in %."
    ((name, value),) = change.items()
    assert [(line[name], line["max"]) for line in by_head(table)] == [(pgd()[0][name], "55.00"), (value, "47.50")]


def test_means_are_over_seeds_alone_and_say_over_how_many():
    some = [*pgd(accuracy=50.0), *pgd(seed=1, network=2, accuracy=40.0), *pgd(steps=20, accuracy=30.0)]
    some += [row | {"pool": "avg", "network": 3} for row in pgd(accuracy=20.0)]
    table = poolings(some)
    first, second = by_head(table)
    assert "means over the seeds" in table["note"]
    assert (first["attack"], first["seeds"], first["max"], first["avg"]) == (
        "PGD-7",
        "1 3407",
        "45.00",
        "20.00 (1 of 2 seeds)",
    )
    assert (second["attack"], second["seeds"], second["max"], second["avg"]) == ("PGD-20", "3407", "30.00", "")


def test_the_clean_accuracy_is_the_mean_of_the_same_networks():
    some = [*pgd(clean_accuracy=90.0), *pgd(seed=1, network=2, clean_accuracy=80.0)]
    some += pgd(seed=1, network=2, steps=20, clean_accuracy=80.0)
    assert [line["clean max"] for line in by_head(poolings(some))] == ["85.00", "80.00"]


def test_what_only_this_budget_shares_is_in_the_note():
    wider = [row for row in rows(eps=(16,), width=32, network=2) if row["pool"] == "max"]
    table = poolings([*pgd(), *wider])
    assert "width" not in table["head"] and "All with width 16." in table["note"]


def test_the_papers_number_is_named_with_the_papers_training():
    paper = {"eps": (6,), "data": "cifar10", "width": 64}
    table = poolings(rows(("sew_resnet50",), **paper, bn="drift"))
    line = by_head(table)[1]
    assert (line["attack"], line["avg"], line["clean avg"]) == ("PGD-7", "97.00 (paper 33.29)", "100.00 (paper 75.28)")
    assert "100 epochs" in table["note"]
    line = by_head(poolings(rows(("sew_resnet50",), **paper)))[1]
    assert (line["avg"], line["clean avg"]) == ("97.00", "100.00 (paper 75.28)"), "not attacked in train mode"


def test_the_worst_case_is_over_attacks_on_the_same_images(tmp_path):
    with Ledger.write(tmp_path) as ledger:
        add(ledger, [cell(4.0, "pgd"), cell(4.0, "fgsm")], [outcome([1, 0, 1, 1]), outcome([1, 1, 0, 1])])
        add(ledger, [cell(4.0, "mim")], [outcome([0, 1])])
        lines = by_head(worst_case(ledger, ledger.results()))
    assert sorted((line["images"], line["attacks"], line["accuracy %"]) for line in lines) == [
        (2, 1, "50.00"),
        (4, 2, "50.00"),
    ]


def test_images_that_are_not_attacked_do_not_count_as_made():
    some = [row for row in rows(eps=(0, 4, 16)) if (row["pool"], row["attack"]) == ("max", "pgd")]
    (line,) = by_head(throughput(some, RUNS))
    assert (line["adversarial images"], line["seconds"], line["images/s"]) == (400, "4.5", "88.9")
    (line,) = by_head(throughput([row | {"bn": "drift"} for row in some], RUNS))
    assert line["adversarial images"] == 600, "where statistics move, eps = 0 is attacked too"
    assert throughput([row for row in some if row["eps_255"] == 0], RUNS)["lines"] == []


def test_throughput_is_told_apart_by_restarts_data_width_and_machine():
    changes = ({}, {"restarts": 3}, {"data": "cifar10"}, {"width": 64})
    some = [row for change in changes for row in pgd(**change)] + pgd(run=2)
    lines = by_head(throughput(some, RUNS))
    assert len(lines) == 5 and [line["machine"] for line in lines] == ["A, 2 threads"] * 4 + ["B, 2 threads"]
    assert [(line["restarts"], line["data"], line["width"]) for line in lines[:4]] == [
        (1, "digits", 16),
        (3, "digits", 16),
        (1, "cifar10", 16),
        (1, "digits", 64),
    ]
