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


def test_the_error_of_a_mean_is_that_of_its_networks_and_of_one_network_that_of_its_starts():
    row = {"reference": [0.0] * 6, "fast": [1.0, 1.0, 1.0, 3.0, 3.0, 3.0]}
    assert agreement.apart(row, "fast", networks=2) == (2.0, 1.0)
    assert agreement.apart(row, "fast", networks=1) == (2.0, (1.2 / 6) ** 0.5)
    middle, error = agreement.apart({"reference": [1.0], "fast": [0.5]}, "fast", networks=1)
    assert middle == -0.5 and math.isnan(error)
