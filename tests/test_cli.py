import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import fastsnn
from fastsnn import cli, data
from fastsnn.cli.settings import settings_of
from fastsnn.sweep import Ledger, folder, theorems, weights

from .sweep import tiny


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.setitem(data.DATASETS, "few", tiny.load)
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def refused(capsys, *argv):
    """Return the one sentence with which a command line is refused."""
    try:
        code = cli.main(argv)
    except SystemExit as exit:
        code = exit.code
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and len(err.splitlines()) == 1 and err.startswith("fastsnn")
    return err


def test_a_sweep_shows_its_table_and_says_where_the_files_are(capsys, tmp_path):
    assert cli.main(["sweep", *tiny.FLAGS, "--out", "results"]) == 0
    out, err = capsys.readouterr()
    assert "sew_resnet18" in out and "results/results.csv" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "sew_resnet18 max 3407: train: 40 images" in err and "sew_resnet18 avg 3407: pgd-2, 3 eps: done" in err
    rows = list(csv.DictReader((tmp_path / "results" / "results.csv").open()))
    assert len(rows) == 12
    assert all(row["accuracy"] == row["clean_accuracy"] for row in rows if row["eps_255"] == "0")


def test_the_same_seed_gives_the_same_results_cached_or_not(capsys, tmp_path):
    flags = [*tiny.FLAGS, "--pool", "avg", "--quiet"]
    assert cli.main(["sweep", *flags, "--out", "cold"]) == 0
    assert cli.main(["sweep", *flags, "--out", "cached"]) == 0
    assert cli.main(["sweep", *flags, "--out", "retrained", "--retrain"]) == 0
    assert capsys.readouterr().err == ""
    contents = {(tmp_path / out / "results.csv").read_bytes() for out in ("cold", "cached", "retrained")}
    assert len(contents) == 1


def test_the_results_go_to_runs_by_default(capsys, tmp_path):
    assert cli.main(["sweep", *tiny.FLAGS, "--pool", "max", "--attacks", "fgsm", "--quiet"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("few-") and (run / "ledger.sqlite").exists()


@pytest.mark.parametrize(
    "lists", [["--eps", "0,4.5", "--pool", "max,avg"], ["--eps", "0", "4.5", "--pool", "max", "avg"]]
)
def test_lists_take_spaces_and_commas(lists):
    arguments = cli._parser().parse_args(["sweep", *lists])
    settings = settings_of(arguments)
    assert settings.eps == (0, 4.5) and settings.pools == ("max", "avg")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--models", "sew_resnet19"], "Did you mean"),
        (["--pool", "mean"], "pool is 'mean'"),
        (["--eps", "0", "six"], "eps holds 'six'"),
        (["--eps", ","], "at least one value"),
        (["--eps", "300"], "at most 255"),
        (["--seed", "1", "1"], "seed names 1 twice"),
        (["--surrogate", "atan"], "surrogate has 'atan'"),
        (["--train-batch-size", "0"], "train-batch-size is 0"),
        (["--width", "x"], "--width"),
        (["--alpha", "0"], "alpha is 0.0"),
        (["--device", "tpu"], "device is 'tpu'"),
        (["--images", "9999"], "360 test images"),
        (["--epoch", "3"], "unrecognized arguments: --epoch"),
        (["--out", __file__], "neither empty nor the folder of a sweep"),
    ],
)
def test_a_bad_flag_is_refused_with_one_sentence_and_nothing_written(capsys, tmp_path, flags, message):
    assert message in refused(capsys, "sweep", *flags)
    assert not (tmp_path / "runs").exists()


def test_an_existing_folder_is_refused_before_any_work(capsys, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "results.csv").write_text("precious")
    assert "full exists and is neither empty nor the folder of a sweep" in refused(
        capsys, "sweep", *tiny.FLAGS, "--out", "full"
    )
    assert (tmp_path / "full" / "results.csv").read_text() == "precious"
    assert not any((tmp_path / "cache").rglob("*.safetensors"))


def test_a_cache_that_cannot_be_made_is_refused_before_any_work(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "file"))
    assert str(tmp_path / "file") in refused(capsys, "sweep", *tiny.FLAGS, "--out", "new")
    assert not (tmp_path / "new").exists()


def test_a_missing_command_is_refused(capsys):
    assert "command" in refused(capsys)


SPARSITY = [*tiny.FLAGS[:10], "--batch-size", "5", "--steps", "2"]


def test_sparsity_shows_its_table_and_says_where_the_files_are(capsys, tmp_path):
    assert cli.main(["sparsity", *SPARSITY, "--out", "results"]) == 0
    out, err = capsys.readouterr()
    assert "20 layers  convolution" in out and "mean over 24 gradients in 6 passes" in out
    assert "sew_resnet18 max 3407: gradients: 12 images" in err and "% zeros at the input" in err
    lines = list(csv.DictReader((tmp_path / "results" / "sparsity.csv").open()))
    assert {line["pool"] for line in lines} == {"max", "avg"} and {line["eps_255"] for line in lines} == {"6"}
    assert len(list((tmp_path / "results" / "figures").iterdir())) == 4
    assert cli.main(["sparsity", *SPARSITY, "--out", "results", "--quiet"]) == 0, "the folder of a measurement"
    assert capsys.readouterr().err == ""


def test_sparsity_takes_the_weights_that_a_sweep_trained(capsys, tmp_path):
    assert cli.main(["sweep", *tiny.FLAGS, "--pool", "max", "--attacks", "fgsm", "--quiet"]) == 0
    assert cli.main(["sparsity", *SPARSITY, "--pool", "max", "--attack", "none", "--per-step"]) == 0
    assert "sew_resnet18 max 3407: weights from" in capsys.readouterr().err
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path.name.startswith("sparsity-few-"))
    lines = list(csv.DictReader((run / "sparsity.csv").open()))
    assert {line["t"] for line in lines} == {"", "0", "1", "2", "3"}
    flags = ["--pool", "max", "--attack", "none", "--per-step", "--fused"]
    assert cli.main(["sparsity", *SPARSITY, *flags]) == 0
    fused = list(csv.DictReader((run.with_name(f"{run.name}-fused") / "sparsity.csv").open()))
    assert {line["counted"] for line in fused} == {"kernels"} and {line["counted"] for line in lines} == {"hooks"}
    for line, other in zip(lines, fused, strict=True):
        assert (line["layer"], line["zeros_in"]) == (other["layer"], other["zeros_in"])
    assert lines != fused, "the norms are another sum's"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eps", "2,4"], "eps is 2.0, 4.0, expected one value"),
        (["--attack", "square"], "invalid choice: 'square'"),
        (["--models", "sew_resnet19"], "Did you mean"),
        (["--images", "9999"], "360 test images"),
        (["--steps", "0"], "steps is 0 with attack='pgd'"),
        (["--restarts", "3"], "unrecognized arguments"),
        (["--out", __file__], "neither empty nor the folder of a measurement"),
    ],
)
def test_a_bad_flag_of_sparsity_is_refused_with_one_sentence_and_nothing_written(capsys, tmp_path, flags, message):
    assert message in refused(capsys, "sparsity", *flags)
    assert not (tmp_path / "runs").exists()


THEOREMS = [*tiny.FLAGS[:10], "--images", "3", "--quiet"]


def test_theorems_shows_its_tables_and_writes_a_file_and_a_figure_for_each(capsys, tmp_path):
    assert cli.main(["theorems", *THEOREMS]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("sew_resnet18 max 3407: 3 images, eps = 6/255") and err == ""
    assert "sew_resnet18 avg 3407: 3 images" in out and "4.4  density" in out
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("theorems-few-") and len(list((run / "figures").iterdir())) == 10
    for name in theorems.TABLES:
        assert {line["pool"] for line in csv.DictReader((run / name).open())} == {"max", "avg"}
    assert cli.main(["theorems", *THEOREMS, "--out", str(run), "--pool", "max", "--train-each-T"]) == 0
    lines = list(csv.DictReader((run / "theorem-4.2.csv").open()))
    assert [(line["trained_with"], line["T"]) for line in lines][2:] == [("4", "4"), ("1", "1"), ("2", "2")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eps", "0"], "eps is 0, expected the radius"),
        (["--images", "1"], "images is 1, expected at least 2"),
        (["--attack", "pgd"], "unrecognized arguments: --attack"),
        (["--out", __file__], "neither empty nor the folder of a measurement"),
    ],
)
def test_a_bad_flag_of_theorems_is_refused_with_one_sentence_and_nothing_written(capsys, tmp_path, flags, message):
    assert message in refused(capsys, "theorems", *flags)
    assert not (tmp_path / "runs").exists()


VERDICT = ["--images", "4", "--steps", "1", "--noises", "1", "--noise-images", "1", "--queries", "2"]


def test_verdict_shows_its_tables_says_what_was_judged_before_and_the_report_has_them(capsys, tmp_path):
    flags = [*tiny.FLAGS, "--eps", "4", "--attacks", "fgsm", "--pool", "max", "--quiet", "--out", "run"]
    assert cli.main(["sweep", *flags]) == 0
    capsys.readouterr()
    assert cli.main(["verdict", "run", *VERDICT]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("sew_resnet18 max 3407\ncheck") and "white box beats Square" in out
    assert "fastsnn report run shows them." in out and "sew_resnet18 max 3407: white box beats transfer: not run" in err
    assert cli.main(["verdict", "run", *VERDICT, "--quiet"]) == 0
    assert capsys.readouterr() == (
        "judged before: 1; all verdicts are in run; fastsnn report run shows them.\n",
        "",
    )
    assert cli.main(["report", "run", "--no-pictures"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert (
        "Masked gradients? few, sew_resnet18, max pooling, seed 3407" in page and "<td>Square adds nothing</td>" in page
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nothing"], "nothing is not the folder of a sweep"),
        (["nothing", "--eps", "300"], "eps is 300 (in 1/255), expected less than 255"),
        (["nothing", "--queries", "x"], "--queries"),
        (["nothing", "--device", "tpu"], "device is 'tpu'"),
    ],
)
def test_a_verdict_that_cannot_be_is_refused_with_one_sentence(capsys, tmp_path, flags, message):
    assert message in refused(capsys, "verdict", *flags)
    assert not (tmp_path / "nothing").exists()


def write_plan(tmp_path, text=""):
    keys = {"data": "few", "width": 4, "T": 4, "epochs": 1, "train-batch-size": 20, "eps": [0, 4], "batch_size": 5}
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    (tmp_path / "night.toml").write_text("\n".join([*lines, text]))
    return "night.toml"


def test_a_plan_is_what_flags_would_say_and_flags_take_precedence(capsys, tmp_path):
    plan = write_plan(tmp_path, 'steps = 2\nattacks = ["fgsm", "pgd"]\nseed = [1, 2]')
    assert cli.main(["sweep", plan, "--pool", "max", "--seed", "5", "--quiet"]) == 0
    assert "night/results.csv" in capsys.readouterr().out
    lines = list(csv.DictReader((tmp_path / "runs/night/results.csv").open()))
    assert [(line["seed"], line["pool"], line["attack"], line["steps"]) for line in lines] == [
        ("5", "max", "fgsm", "1"),
        ("5", "max", "fgsm", "1"),
        ("5", "max", "pgd", "2"),
        ("5", "max", "pgd", "2"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("restart = 2", "Did you mean 'restarts'?"),
        ("steps = 'many'", "steps is 'many'"),
        ("eps = [", "is not TOML"),
    ],
)
def test_a_wrong_plan_is_refused(capsys, tmp_path, line, message):
    (tmp_path / "night.toml").write_text(line)
    assert message in refused(capsys, "sweep", "night.toml") and not (tmp_path / "runs").exists()


def test_a_missing_plan_is_refused(capsys):
    assert "night.toml: No such file" in refused(capsys, "sweep", "night.toml")


def test_a_dry_run_shows_cells_and_an_estimate_and_writes_nothing(capsys, tmp_path):
    plan = write_plan(tmp_path, 'steps = [2, 3]\nsurrogate = ["atan:2", "sigmoid:4"]')
    assert cli.main(["sweep", plan, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"{2 * 2 * (1 + 2) * 2} cells of 2 networks" in out and "seconds to attack" in out
    assert "to train 2 of them before" in out and "sigmoid:4" in out and not (tmp_path / "runs").exists()


def test_a_dry_run_leaves_out_what_is_there_network_by_network(capsys, tmp_path):
    dry = ["sweep", *tiny.FLAGS, "--dry-run", "--out", "a"]
    assert cli.main(dry) == 0
    assert "12 cells of 2 networks" in capsys.readouterr().out and not (tmp_path / "cache").exists()
    assert cli.main(["sweep", *tiny.FLAGS, "--pool", "max", "--out", "a", "--quiet"]) == 0
    capsys.readouterr()
    assert cli.main(dry) == 0
    out = capsys.readouterr().out
    assert "12 cells of 2 networks, 6 of which are saved already" in out and "to train 1 of them before" in out
    assert cli.main([*dry, "--pool", "max"]) == 0
    assert "6 cells of 1 networks, 6 of which are saved already; nothing is left to do" in capsys.readouterr().out
    assert cli.main([*dry, "--pool", "max", "--eps", "4", "7"]) == 0
    out = capsys.readouterr().out
    assert "4 cells of 1 networks, 2 of which are saved already" in out and "trained already" in out


def test_a_dry_run_refuses_what_the_run_would(capsys, tmp_path):
    assert "few has 12 test images" in refused(capsys, "sweep", *tiny.FLAGS, "--dry-run", "--images", "100000")
    (tmp_path / "old").write_text("precious")
    assert "neither empty nor" in refused(capsys, "sweep", *tiny.FLAGS, "--dry-run", "--out", ".")


def test_the_same_command_goes_on_and_finds_what_is_there(capsys):
    assert cli.main(["sweep", *tiny.FLAGS]) == 0
    first = capsys.readouterr()
    assert cli.main(["sweep", *tiny.FLAGS]) == 0
    again = capsys.readouterr()
    assert again.out == first.out and "train" not in again.err and "6/12 cells saved" in again.err


def test_progress_as_json(capsys):
    assert cli.main(["sweep", *tiny.FLAGS, "--pool", "max", "--attacks", "fgsm", "--progress", "json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert events[-1] == events[-1] | {"event": "saved", "cells": 3}


def test_exports_are_written_beside_the_results(capsys, tmp_path):
    assert cli.main(["sweep", *tiny.FLAGS, "--out", "a", "--quiet"]) == 0
    capsys.readouterr()
    assert cli.main(["export", "a", "--format", "json"]) == 0
    assert capsys.readouterr().out == "a/export.json\n"
    assert len(json.loads((tmp_path / "a/export.json").read_text())) == 2
    results = (tmp_path / "a/results.csv").read_bytes()
    assert cli.main(["export", "a", "--samples"]) == 0
    assert capsys.readouterr().out == "a/export.csv\na/export-samples.csv\n"
    assert (tmp_path / "a/results.csv").read_bytes() == results, "that is the sweep's own"
    assert "is not the folder of a sweep" in refused(capsys, "export", "b")


def test_version(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["--version"])
    assert exit.value.code == 0 and capsys.readouterr().out == f"fastsnn {fastsnn.__version__}\n"


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["sweep", "--help"])
    assert exit.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "--eps",
        "in 1/255",
        "(default: 0 2 4 6 8 16)",
        "--alpha",
        "absolute",
        "--seed",
        "(default: 3407)",
        "plan.toml",
    ):
        assert part in text


def test_an_interrupt_says_what_is_saved(capsys, monkeypatch, tmp_path):
    whole = folder.run

    def interrupted(*arguments, **options):
        for done in whole(*arguments, **options):
            yield done
            if done.cells:
                raise KeyboardInterrupt

    monkeypatch.setattr(folder, "run", interrupted)
    assert cli.main(["sweep", *tiny.FLAGS, "--out", "half", "--quiet"]) == 130
    err = capsys.readouterr().err
    assert "interrupted; 3 cells are in half/ledger.sqlite" in err and str(weights.directory()) in err
    assert "the same command goes on from there" in err
    assert len((tmp_path / "half" / "results.csv").read_text().splitlines()) == 4


def test_a_diverged_training_is_a_sentence(capsys, monkeypatch):
    def diverge(*_, **__):
        raise FloatingPointError("The training loss is nan in epoch 1; try an lr below 3.")
        yield

    monkeypatch.setattr(folder, "run", diverge)
    assert cli.main(["sweep", *tiny.FLAGS, "--quiet"]) == 1
    assert capsys.readouterr().err == "fastsnn sweep: The training loss is nan in epoch 1; try an lr below 3.\n"


def test_an_engine_that_cannot_begin_is_a_sentence(capsys):
    pytest.importorskip("ray", reason='needs Ray: pip install "fastsnn[ray]"')
    assert cli.main(["sweep", *tiny.FLAGS, "--quiet", "--engine", "ray", "--address", "127.0.0.1:1"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("fastsnn sweep: no Ray cluster answers at 127.0.0.1:1 ") and len(err.splitlines()) == 1


def test_a_full_disk_says_where_and_that_what_was_finished_is_saved(capsys, monkeypatch, tmp_path):
    calls = []

    def full(_):
        calls.append(1)
        if len(calls) > 1:  # the first are the weights
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert cli.main(["sweep", *tiny.FLAGS, "--pool", "max", "--out", "full", "--quiet"]) == 1
    said = "full/results.csv: No space left on device; what was finished is saved"
    assert capsys.readouterr().err == f"fastsnn sweep: {said}.\n"
    with Ledger.read(tmp_path / "full") as ledger:
        assert len(ledger.results()) == 3


def test_an_interrupt_before_there_is_a_ledger_is_a_sentence(capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(cli.sweep, "sweep", interrupted)
    assert cli.main(["sweep", *tiny.FLAGS, "--out", "new", "--quiet"]) == 130
    assert "interrupted; no cell was finished" in capsys.readouterr().err


def test_corrupt_cached_weights_cost_a_report_its_pictures_only(capsys, tmp_path):
    assert cli.main(["sweep", *tiny.FLAGS, "--out", "a", "--quiet"]) == 0
    for file in weights.directory().iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    assert cli.main(["report", "a"]) == 0
    assert "cannot be read" in (tmp_path / "a" / "report.html").read_text()


@pytest.mark.parametrize("command", [["doctor"], ["--version"], ["sweep", "--width", "4", "--dry-run"]])
def test_a_reader_who_leaves_is_no_traceback(command):
    """As in `fastsnn doctor | head -n 0`."""
    run = [sys.executable, "-m", "fastsnn", *command]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": {**os.environ, "PYTHONUNBUFFERED": ""}}
    process = subprocess.Popen(run, text=True, **how)
    process.stdout.close()
    err = process.stderr.read()
    assert "Traceback" not in err and "BrokenPipe" not in err and process.wait(60) == 1


def start(*flags):
    """Start `fastsnn sweep` as a process of its own; return it once it trains."""
    command = [sys.executable, "-c", "import sys; from fastsnn.cli import main; sys.exit(main())", "sweep", *flags]
    how = {"stderr": subprocess.PIPE, "text": True, "env": {**os.environ, "PYTHONUNBUFFERED": "1"}}
    # tests started in the background inherit an ignored SIGINT
    process = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **how)
    for line in process.stderr:
        if "train" in line:
            return process
    raise AssertionError(f"it ended with {process.wait()} before it trained")


FOR_LONG = ["--width", "4", "--epochs", "1000", "--out", "killed"]


def test_a_killed_run_leaves_nothing_half_written(tmp_path):
    process = start(*FOR_LONG)
    time.sleep(0.5)
    process.kill()
    assert process.wait(30) == -signal.SIGKILL
    with Ledger.read(tmp_path / "killed") as ledger:
        assert ledger.results() == [] and ledger.runs()[0]["finished"] is None
    assert list((tmp_path / "cache" / "weights").iterdir()) == []


def test_ctrl_c_exits_130_with_a_sentence(tmp_path):
    process = start(*FOR_LONG)
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(30) == 130
    assert "interrupted; no cell was finished" in rest and "Traceback" not in rest
