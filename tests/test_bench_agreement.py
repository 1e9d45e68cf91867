import json

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
