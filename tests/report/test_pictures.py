from fastsnn import cli, data
from fastsnn.report import pictures

from ..sweep import tiny


def test_pictures_are_attacked_with_the_surrogate_of_their_row(tmp_path, monkeypatch):
    monkeypatch.setitem(data.DATASETS, "few", tiny.load)
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    flags = [
        "--surrogate",
        "triangle:3",
        "--attacks",
        "fgsm",
        "--pool",
        "max",
        "--quiet",
        "--out",
        str(tmp_path / "run"),
    ]
    assert cli.main(["sweep", *tiny.FLAGS, *flags]) == 0
    seen, attack = [], pictures._attack

    def watched(row, net, x, y):
        seen.append((net.sn1.neuron.surrogate, net.layer4[1].sn2.neuron.alpha))
        return attack(row, net, x, y)

    monkeypatch.setattr(pictures, "_attack", watched)
    assert cli.main(["report", str(tmp_path / "run")]) == 0
    assert seen == [("triangle", 3)]
