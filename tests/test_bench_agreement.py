import json
import math

import pytest

from bench import agreement

pytest.importorskip("spikingjelly", reason="bench compares with SpikingJelly")


def test_it_trains_attacks_and_compares_in_every_precision(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    flags = ["--models", "sew_resnet18", "--width", "4", "--epochs", "1", "--images", "4", "--starts", "2"]
    agreement.main([*flags, "--json", str(tmp_path / "found.json")])
    shares, accuracies = [], []
    for row in json.loads((tmp_path / "found.json").read_text())["rows"]:
        (accuracies if "attack" in row else shares).append(row)
    assert len(shares) == 2 and len(accuracies) == 2 * 2 * 6
    assert all(row["layer"] <= 1e-4 for row in shares)
    for row in accuracies:
        for kind in agreement.PRECISIONS:
            assert len(row[kind]) == (2 if row["attack"] == "pgd" else 1)
            assert all(0 <= accuracy <= 100 for accuracy in row[kind])
    unattacked = [row for row in accuracies if row["eps_255"] == 0]
    assert all(len({*row[kind]}) == 1 for row in unattacked for kind in agreement.PRECISIONS)
    assert "furthest fp32 is from reference: " in capsys.readouterr().out


def test_files_of_several_networks_are_read_together(tmp_path, capsys):
    for seed, fast in ((1, 50.0), (2, 56.0)):
        about = {"model": "sew_resnet18", "pool": "max", "width": 16, "epochs": 4, "images": 360, "seed": seed}
        spikes = about | {"layer": 0.0, "fp32": 0.0, "fast": 0.01}
        cell = about | {"attack": "fgsm", "eps_255": 8, "reference": [51.0], "fp32": [51.0], "fast": [fast]}
        (tmp_path / f"{seed}.json").write_text(json.dumps({"rows": [spikes, cell]}))
    agreement.main(["--read", str(tmp_path / "1.json"), str(tmp_path / "2.json")])
    lines = capsys.readouterr().out.splitlines()
    (cell,) = [line.split() for line in lines if " fgsm " in line]
    text = "resnet18 max 2 fgsm 8 51.00 51.00 +0.00 +-0.00 53.00 +2.00 +-3.00 51.00 51.00"
    assert " ".join(cell) == text
    assert "furthest fast is from reference: +2.00 +-3.00 points" in lines
    with pytest.raises(ValueError, match=r"resnet18 max with seed 1 is there twice"):
        agreement.main(["--read", str(tmp_path / "1.json"), str(tmp_path / "1.json")])


def test_the_error_of_a_mean_is_that_of_its_networks_and_of_one_network_that_of_its_starts():
    rows = [{"reference": [0.0] * 3, "fast": [away] * 3} for away in (1.0, 3.0)]
    assert agreement.apart(rows, "fast") == (2.0, 1.0)
    assert agreement.apart([{"reference": [0.0] * 3, "fast": [1.0, 2.0, 3.0]}], "fast") == (2.0, (2 / 2 / 3) ** 0.5)
    middle, error = agreement.apart([{"reference": [1.0], "fast": [0.5]}], "fast")
    assert middle == -0.5 and math.isnan(error)
