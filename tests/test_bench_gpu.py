"""python -m bench.gpu, as far as it goes without a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.gpu import __main__ as command
from bench.gpu import kernels, results
from bench.gpu.attacks import against_spikingjelly, gaps
from bench.gpu.card import Card
from bench.gpu.checks import _run
from bench.gpu.sizes import DRY
from fastsnn.ops import backends

ROOT = Path(__file__).parent.parent


@pytest.fixture
def card():
    return Card("cpu")


def record(*rows, failed="", cut_short=False):
    return {"rows": list(rows), "seconds": 1.0, "failed": failed, "cut_short": cut_short}


COMPARED = {
    "network": "SEW-ResNet18 max",
    "batch": 16,
    "steps": 7,
    "products": "ieee",
    "precision": "fp32",
    "ours": 0.01,
    "ours_drift": 0.02,
    "a": 0.25,
    "b": 0.1,
    "equal_places": 0.999,
}


def run(date="2026-01-31", dry_run=False, gpu="NVIDIA H200", **sections):
    about = {"device": "cuda", "gpu": gpu, "processor": "x", "driver": "580.1", "commit": "abc", "versions": {}}
    about["versions"] = {"torch": "2.11.0", "spikingjelly": None, "numpy": "2.3"}
    return {"date": date, "dry_run": dry_run, "about": about, "sections": sections}


def test_a_dry_run_walks_through_every_section_and_writes_both_files(tmp_path):
    argv = [sys.executable, "-m", "bench.gpu", "--dry-run", "--out", tmp_path]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (data,), (text,) = tmp_path.glob("*.json"), tmp_path.glob("*.md")
    found = json.loads(data.read_text())
    assert found["dry_run"] and list(found["sections"]) == list(command.SECTIONS) == list(results.TABLES)
    for name, section in found["sections"].items():
        assert section["rows"] and not section["failed"], name
        assert results.TABLES[name][0] in text.read_text() and results.table(name, section) in done.stdout
    rows = found["sections"]["against_spikingjelly"]["rows"]
    assert len(rows) == 2 and all(min(row[name] for name in ("ours", "ours_drift", "a", "b", "c")) > 0 for row in rows)
    assert {row["fine"] for row in found["sections"]["checks"]["rows"]} == {True}
    assert results.readme_table(tmp_path) == results.NONE_YET  # a dry run proves nothing about a GPU


def test_the_readme_says_what_the_newest_result_says():
    assert results.readme_table() in (ROOT / "README.md").read_text()


def test_the_readmes_table_comes_from_the_newest_real_run(tmp_path):
    results.write(run("2026-01-30", against_spikingjelly=record({**COMPARED, "ours": 1.0})), tmp_path)
    results.write(run("2026-02-01", dry_run=True, gpu="none"), tmp_path)
    wrong = {**COMPARED, "batch": 64, "wrong": "one step differs"}
    results.write(run("2026-01-31", against_spikingjelly=record(COMPARED, wrong)), tmp_path)
    assert results.readme_table(tmp_path).splitlines() == [
        "On a GPU: NVIDIA H200, driver 580.1, torch 2.11.0; commit abc.",
        "",
        "|  | fastsnn | SpikingJelly | ratio |",
        "| --- | --- | --- | --- |",
        "| PGD-7, SEW-ResNet18 max, batch 16, fp32 | 10.0 ms | 250.0 ms, the paper's loop | 25.0x |",
        "| PGD-7, SEW-ResNet18 max, batch 16, fp32 | 10.0 ms | 100.0 ms, frozen weights | 10.0x |",
    ]


def test_the_table_of_a_section_shows_notes_and_failures_and_no_empty_columns():
    text = results.table("against_spikingjelly", record({**COMPARED, "note": "torch.compile failed"}, failed="Boom"))
    assert "| SEW-ResNet18 max | 16 | ieee | 10.0 | 20.0 | 250.0 (25.0x) | 100.0 (10.0x) | 99.9% |" in text
    assert "| c |" not in text and "- note: torch.compile failed" in text and "FAILED" in text and "Boom" in text
    assert "Nothing was measured." in results.table("kernels", record())


def test_a_section_that_fails_is_recorded_and_the_others_run(tmp_path, monkeypatch, card, capsys):
    def breaks(*_):
        yield {"what": "first", "amount": 1.0, "unit": "GB/s"}
        raise RuntimeError("no such kernel")

    def works(*_):
        yield {"check": "a", "said": "fine", "fine": True}

    monkeypatch.setattr(command, "SECTIONS", {"ceilings": (breaks, 0.5), "checks": (works, 0.5)})
    found = command.measure(card, DRY, 1, tmp_path)
    assert "no such kernel" in found["sections"]["ceilings"]["failed"] and not command.is_fine(found)
    assert [row["what"] for row in found["sections"]["ceilings"]["rows"]] == ["first"]
    assert found["sections"]["checks"]["rows"] and not found["sections"]["checks"]["failed"]
    assert json.loads(next(tmp_path.glob("*.json")).read_text()) == found | {
        "sizes": json.loads(json.dumps(DRY._asdict()))
    }


def test_wrong_answers_and_failed_checks_are_no_success():
    assert command.is_fine(run(checks=record({"fine": True}, {"fine": None})))
    assert not command.is_fine(run(checks=record({"fine": False})))
    assert not command.is_fine(run(kernels=record({"op": "IF forward", "wrong": "cuda: 3 of 5 values differ"})))


def test_a_kernel_that_answers_wrongly_is_told(card, monkeypatch):
    forward = backends.implementation("phase_encode", "cpu", card.device)
    monkeypatch.setattr(forward, "forward", lambda *arguments: torch.zeros(DRY.T, *arguments[0].shape))
    rows = {row["op"]: row for row in kernels.measure(card, DRY, command.Clock(float("inf")))}
    assert "values differ" in rows["phase_encode"]["wrong"]
    assert "wrong" not in rows["IF forward"] and "wrong" not in rows["IF backward"]


def test_a_gradient_that_is_off_or_no_number_is_told():
    case = kernels.Case("IF backward", (2,), torch.float32, 8, None, False)
    expected = torch.tensor([1.0, -2.0])
    assert kernels._difference(case, expected * (1 + 1e-7), expected) == ""
    assert kernels._difference(case, expected + 1e-4, expected).startswith("off by 5.0e-05")
    assert "nan" in kernels._difference(case, expected * float("nan"), expected)


def test_without_spikingjelly_ours_alone_is_measured(card, monkeypatch):
    for name in ["spikingjelly", *(name for name in sys.modules if name.startswith("spikingjelly."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "bench.baselines", raising=False)
    rows = list(against_spikingjelly(card, DRY, command.Clock(float("inf"))))
    assert len(rows) == 2 and all("not installed" in row["note"] and row["ours"] > 0 and "a" not in row for row in rows)


def test_a_section_whose_time_is_over_measures_nothing_more(card):
    clock = command.Clock(0.0)
    assert clock.is_over() and clock.left() < 0
    assert list(against_spikingjelly(card, DRY, clock)) == []
    clock = command.Clock(float("inf"))
    assert not clock.is_over(0.5)


def test_gaps_between_kernels():
    assert gaps([]) == (None, None)
    assert gaps([(1.0, 2.0)]) == (0.0, 0.0)
    idle, longest = gaps([(4.0, 5.0), (0.0, 1.0), (0.5, 2.0), (1.0, 1.5), (5.5, 6.0)])
    assert idle == pytest.approx(2.5 / 6) and longest == pytest.approx(2.0)


def test_a_check_that_hangs_is_stopped_and_one_that_fails_keeps_its_log(monkeypatch):
    monkeypatch.setattr("bench.gpu.checks.PATIENCE", 1)
    hangs = _run("hangs", [sys.executable, "-c", "import time; print('3 passed', flush=True); time.sleep(60)"], 1)
    assert hangs["fine"] is None and hangs["said"].startswith("stopped after 1 s")
    fails = _run("fails", [sys.executable, "-c", "print('why'); print('1 failed, 2 passed'); exit(1)"], 60)
    assert fails == {
        "check": "fails",
        "said": "1 failed, 2 passed",
        "fine": False,
        "log": ["why", "1 failed, 2 passed"],
    }


def test_without_a_gpu_nothing_is_measured(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as exit:
        command.main([])
    assert exit.value.code == 2 and "--dry-run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["--dry-run", "--minutes", "0"])
    assert "--minutes is 0" in capsys.readouterr().err
