import importlib.util
import json
import re

import pytest

from fastsnn.sweep import Settings, default_out, folder, prepare, sweep
from fastsnn.sweep.progress import Silent

from . import tiny


@pytest.fixture
def settings(few_digits):
    return Settings(**tiny.SETTINGS)


def test_a_finished_sweep_leaves_results_figure_and_record(settings, tmp_path):
    prepare(settings, tmp_path / "a" / "b")
    finished = [str(done.stage) for done in sweep(settings, tmp_path / "a" / "b", Silent())]
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["accuracy.png", "results.csv", "run.json"]
    record = json.loads((tmp_path / "a" / "b" / "run.json").read_text())
    assert record["finished"] >= record["started"] and record["seconds"] > 0
    assert [stage["stage"] for stage in record["stages"]] == finished
    assert record["settings"]["seed"] == 3407 and record["settings"]["eps"] == [0, 4, 16]
    assert record["versions"]["torch"] and record["machine"]["processor"] and record["machine"]["threads"] >= 1
    assert record["weights"].keys() == {"sew_resnet18 max", "sew_resnet18 avg"}


def test_what_is_yielded_is_on_the_disk(settings, tmp_path):
    rows = 0
    for done in sweep(settings, tmp_path, Silent()):
        rows += len(done.rows)
        if rows:
            assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + rows
        record = json.loads((tmp_path / "run.json").read_text())
        assert record["finished"] is None and record["stages"][-1]["stage"] == str(done.stage)
    assert rows == 12


def test_a_folder_that_holds_something_is_refused(settings, tmp_path):
    (tmp_path / "old").touch()
    with pytest.raises(FileExistsError, match=f"{tmp_path} exists and is not an empty folder"):
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


def test_the_default_folder_is_named_after_data_and_time(settings):
    assert re.fullmatch(r"few-\d{8}-\d{6}", default_out(settings).name)
    assert default_out(settings).parent.name == "runs"
    assert folder.RESULTS == "results.csv"
