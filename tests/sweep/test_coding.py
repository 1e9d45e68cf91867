"""The coding of a sweep's images: an axis of its networks, which leaves what there was before it as it was."""

import sqlite3

import pytest
import torch

from fastsnn import attacks, cli, models, training
from fastsnn.data import Dataset
from fastsnn.nn import ENCODERS, DirectEncoder, LatencyEncoder, RateEncoder
from fastsnn.report.pictures import row_to_show
from fastsnn.sweep import Cell, Ledger, Network, Settings, networks, plan, weights
from fastsnn.sweep.ledger import FILE
from fastsnn.sweep.run import _content_hash

from . import tiny
from .test_ledger import add, cell, outcome
from .test_report import rows
from .test_run import everything, samples, settings

CPU = torch.device("cpu")
ONE = {"attacks": ("pgd",), "eps": (8,)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_network_is_made_for_each_coding_and_one_of_events():
    found = plan.networks(Settings(data=("digits", "cifar10_dvs"), codings=("phase", "rate"), pools=("avg",)))
    assert [(network.data, network.coding) for network in found] == [
        ("digits", "phase"),
        ("digits", "rate"),
        ("cifar10_dvs", "events"),
    ]
    assert list(map(str, found)) == [f"sew_resnet18 avg 3407{end}" for end in ("", " rate", " events")]


def test_an_unknown_coding_is_refused_with_the_near_one():
    with pytest.raises(ValueError, match=r"codings is 'fase', expected one of 'phase', .*Did you mean 'phase'"):
        Settings(codings=("fase",))


def test_the_phase_code_has_the_hashes_it_had_before_there_were_others(monkeypatch):
    """Computed by the version that knew no codings."""
    arithmetic = {"torch": "1", "device": "a", "kernels": "b"}
    monkeypatch.setattr(networks, "arithmetic", lambda device: arithmetic)
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    few = Dataset(images, torch.tensor([0, 1]), ("a", "b"), "digits", "train")

    def hashes(*coding):
        network = Network("digits", "sew_resnet18", "max", 3407, *coding)
        description = networks.describe(Settings(), network, few, CPU) | {"threads": 1}
        attack = Cell(network, "pgd", "frozen", "atan:2", 7, 1, 4)
        return weights.path(description).stem, _content_hash(Settings(), attack, "w", "i", arithmetic)[0]

    before = "056f34e7301592382e5bd725faa73ac652f14f86a3aa0df643b625ad250e6bcd"
    assert hashes() == hashes("phase") == ("sew_resnet18-max-digits-ca0f7b90a23e3fe6", before)
    every = {hashes(coding) for coding in ENCODERS}
    assert len(every) == len({file for file, _ in every}) == len({content for _, content in every}) == len(ENCODERS)


def test_a_ledger_from_before_is_read_and_gone_on_with(tmp_path):
    with Ledger.write(tmp_path) as ledger:
        add(ledger, [cell(4.0)], [outcome([1, 0])])
    with sqlite3.connect(tmp_path / FILE) as old:
        old.execute("DROP VIEW results")
        old.execute("CREATE VIEW results AS SELECT id AS cell, eps AS eps_255 FROM cells")
    with Ledger.read(tmp_path) as ledger:
        assert [(row["eps_255"], row["coding"]) for row in ledger.results()] == [(4.0, "phase")]
    with Ledger.write(tmp_path) as ledger:
        add(ledger, [cell(2.0)], [outcome([1, 0])])
    with sqlite3.connect(tmp_path / FILE) as file:
        assert file.execute("SELECT eps_255, coding FROM results").fetchall() == [(2.0, "phase"), (4.0, "phase")]


@pytest.mark.parametrize("encoder", [LatencyEncoder(4), DirectEncoder(4)], ids=["latency", "direct"])
def test_samples_are_what_the_plain_loop_finds_on_input_so_coded(encoder):
    coding = "latency" if isinstance(encoder, LatencyEncoder) else "direct"
    chosen = settings(codings=(coding,), **ONE)
    _, (row,), found = everything(chosen)
    assert row["coding"] == coding
    train_set, test_set = tiny.load("train"), tiny.load("test")
    torch.manual_seed(3407)
    net = models.sew_resnet18(pool="max", width=4)
    how = {"epochs": 1, "batch_size": 20, "lr": chosen.lr, "schedule": chosen.schedule, "seed": 3407}
    training.train(net, train_set.images, train_set.labels, **how, encode=encoder)
    seeds = torch.randint(2**63 - 1, (12,), generator=torch.Generator().manual_seed(3407))
    x, y = encoder(test_set.images), test_set.labels
    draws = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
    adv = attacks.pgd(net, x, y, eps=8 / 255, alpha=0.01, steps=2, generator=draws)
    expected = (net(x).argmax(1) == y, net(adv).argmax(1) == y, (adv - x).abs().amax((0, 2, 3, 4)))
    (lines,) = found.values()
    assert [(line[1], line[2], line[4]) for line in lines] == list(zip(*(e.tolist() for e in expected), strict=True))


def test_a_random_code_depends_on_the_image_alone_and_is_drawn_from_the_seed(monkeypatch):
    seen = []
    forward = RateEncoder.forward
    monkeypatch.setattr(RateEncoder, "forward", lambda *given: seen.append(forward(*given)) or seen[-1])
    chosen = {"codings": ("rate",), **ONE}
    whole = samples(settings(**chosen))
    trained, attacked = seen[:2], seen[2:]
    assert [x.shape[1] for x in seen] == [20, 20, *(5, 5, 2) * 2]
    assert torch.equal(torch.cat(attacked[:3], 1), torch.cat(attacked[3:], 1)), "the same with and without an attack"
    assert not torch.equal(trained[0][:, :5], trained[1][:, :5])
    x = torch.cat(attacked[:3], 1)
    assert set(x.unique().tolist()) == {0, 1}
    assert torch.corrcoef(torch.stack([x.mean(0).flatten(), tiny.load("test").images.flatten() / 255]))[0, 1] > 0.8
    assert samples(settings(**chosen)) == whole, "from the cache of weights"


@pytest.mark.parametrize("change", [{"batch_size": 12}, {"batch_size": 1}, {"images": 7}])
def test_with_a_random_code_neither_batches_nor_fewer_images_change_a_sample(change):
    chosen = {"codings": ("rate",), **ONE}
    (whole,), (changed,) = samples(settings(**chosen)).values(), samples(settings(**chosen | change)).values()
    assert changed == whole[: change.get("images", 12)]


def test_the_command_takes_codings_and_its_report_tells_them_apart(capsys, tmp_path):
    flags = [*tiny.FLAGS, "--pool", "max", "--attacks", "fgsm", "--coding", "phase,latency", "--out", "out"]
    assert cli.main(["sweep", *flags]) == 0
    out, _ = capsys.readouterr()
    assert "coding" in out and "latency" in out
    lines = (tmp_path / "out" / "results.csv").read_text().splitlines()
    column = lines[0].split(",").index("coding")
    assert [line.split(",")[column] for line in lines[1:]] == ["latency"] * 3 + ["phase"] * 3
    assert cli.main(["report", "out"]) == 0 and cli.main(["sweep", *flags, "--dry-run"]) == 0
    assert "6 cells of 2 networks" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<td>latency</td>" in page and "<td>phase</td>" in page


def test_pictures_are_of_phase_coded_images():
    assert row_to_show(rows(coding="rate")) is None
    assert row_to_show([*rows(coding="rate"), *rows()])["coding"] == "phase"
