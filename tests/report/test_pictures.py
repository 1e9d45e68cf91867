from fastsnn import cli, data
from fastsnn.sweep import by_name

from ..sweep import tiny


def test_pictures_are_attacked_with_the_surrogate_of_their_row(tmp_path, monkeypatch):
    monkeypatch.setitem(data.DATASETS, "few", tiny.load)
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    flags = ["--surrogate", "triangle:3", "--attacks", "fgsm", "--pool", "max", "--quiet"]
    flags += ["--out", str(tmp_path / "run")]
    assert cli.main(["sweep", *tiny.FLAGS, *flags]) == 0
    seen, craft = [], by_name.craft

    def watched(*arguments, **how):
        seen.append(how["surrogate"])
        return craft(*arguments, **how)

    monkeypatch.setattr(by_name, "craft", watched)
    assert cli.main(["report", str(tmp_path / "run")]) == 0
    assert seen == ["triangle:3"]
