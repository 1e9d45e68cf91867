import importlib.util
import re
from pathlib import Path

import pytest

from fastsnn.sweep import Ledger, Settings, default_out, folder, prepare, sweep
from fastsnn.sweep.progress import Silent

from . import tiny


@pytest.fixture
def settings(few_digits):
    return Settings(**tiny.SETTINGS)


def test_a_finished_sweep_leaves_ledger_results_and_figure(settings, tmp_path):
    out = tmp_path / "a" / "b"
    prepare(settings, out)
    for _ in sweep(settings, out, Silent()):
        pass
    seen = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    assert seen == ["accuracy.png", "ledger.sqlite", "results.csv"]
    with Ledger.read(out) as ledger:
        (run,) = ledger.runs()
    assert run["finished"] >= run["started"]
    assert run["settings"]["seeds"] == [3407] and run["settings"]["eps"] == [0, 4, 16]
    assert run["versions"]["torch"] and run["machine"]["processor"] and run["machine"]["threads"] >= 1


def test_what_is_yielded_is_on_the_disk(settings, tmp_path):
    rows = 0
    for done in sweep(settings, tmp_path, Silent()):
        rows += len(done.cells)
        with Ledger.read(tmp_path) as ledger:
            assert len(ledger.results()) == rows
            assert ledger.runs()[0]["finished"] is None
        if rows:
            assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + rows
    assert rows == 12


def test_the_folder_of_a_sweep_is_gone_on_with(settings, tmp_path):
    for _ in sweep(settings, tmp_path, Silent()):
        pass
    before = (tmp_path / "results.csv").read_bytes()
    prepare(settings, tmp_path)
    assert list(sweep(settings, tmp_path, Silent())) == []
    assert (tmp_path / "results.csv").read_bytes() == before
    with Ledger.read(tmp_path) as ledger:
        assert len(ledger.runs()) == 2


def test_a_folder_that_holds_something_is_refused(settings, tmp_path):
    (tmp_path / "old").touch()
    with pytest.raises(FileExistsError, match=f"{tmp_path} exists and is neither empty nor the folder of a sweep"):
        prepare(settings, tmp_path)
    with pytest.raises(FileExistsError, match="exists"):
        prepare(settings, tmp_path / "old")


def test_an_empty_folder_is_taken(settings, tmp_path):
    (tmp_path / "empty").mkdir()
    prepare(settings, tmp_path / "empty")
    prepare(settings, tmp_path / "new")
    assert not any((tmp_path / "empty").iterdir()) and (tmp_path / "new").is_dir()


def test_more_images_than_there_are_are_refused_and_no_folder_made(settings, tmp_path):
    with pytest.raises(ValueError, match="images is 13, but few has 12 test images"):
        prepare(Settings(**tiny.SETTINGS, images=13), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_missing_packages_name_the_extra(settings, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("rich", "sklearn") else name)
    with pytest.raises(ImportError, match=r'a sweep needs scikit-learn, rich; .* pip install "fastsnn\[sweep\]"'):
        prepare(settings, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_default_folder_is_named_after_the_settings_or_the_plan(settings):
    assert re.fullmatch(r"few-[0-9a-f]{8}", default_out(settings).name)
    assert default_out(settings) == default_out(Settings(**tiny.SETTINGS))
    assert default_out(settings) != default_out(Settings(**tiny.SETTINGS | {"steps": (3,)}))
    assert default_out(settings, Path("plans/night.toml")) == Path("runs/night")
    assert folder.RESULTS == "results.csv"
