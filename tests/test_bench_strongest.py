import functools
import sys

from bench import strongest
from fastsnn import data
from fastsnn.sweep import Settings

from .sweep import tiny


def test_networks_are_attacked_without_and_with_a_defence(tmp_path, monkeypatch, capsys):
    few = {split: tiny.load(split) for split in ("train", "test")}
    monkeypatch.setitem(data.DATASETS, "digits", lambda split: few[split])
    monkeypatch.setattr(strongest.plan, "Settings", functools.partial(Settings, width=4, T=2, epochs=1))
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    flags = ["--pools", "avg", "--defence", "none", "snn_rat", "--images", "2", "--only", "FGSM"]
    monkeypatch.setattr(sys, "argv", ["strongest", *flags])
    strongest.main()
    out, err = capsys.readouterr()
    heads = [line for line in out.splitlines() if line.startswith("sew_resnet18")]
    assert [head.partition(",")[0] for head in heads] == ["sew_resnet18 avg 3407", "sew_resnet18 avg 3407 snn_rat"]
    assert out.count("FGSM") == 2 and err.count("train: done") == 2
