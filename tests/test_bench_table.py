import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.table import ROWS, markdown

ROOT = Path(__file__).parent.parent


def _run(*names, machine="a Zen 4, torch 2", **about):
    about = {"candidate_seconds": 0.5, "baseline_seconds": 2.0, "ratio": 4.0, **about, "machine": machine}
    return {"benchmarks": [{"name": name, "extra_info": about} for name in names]}


def test_a_row_holds_both_times_and_the_ratio_in_the_order_of_the_table():
    adam, fast = "test_adam_step_vs_spikingjelly", "test_pgd7_vs_papers_loop[18-max-fast]"
    assert markdown(_run(adam, "test_of_something_else", fast)).splitlines() == [
        "Measured on a Zen 4, torch 2:",
        "",
        "| | fastsnn | SpikingJelly | ratio |",
        "|---|---|---|---|",
        '| the same, `precision="fast"` | 0.50 s | 2.00 s, the paper\'s loop | 4.0x |',
        "| one Adam step, SEW-ResNet18 max, batch 16, fp32 | 0.50 s | 2.00 s | 4.0x |",
    ]


def test_memory_is_given_in_mebibytes_and_short_times_in_milliseconds():
    memory = {"candidate_bytes": 150 * 2**20, "baseline_bytes": 330 * 2**20, "ratio": 2.2}
    table = markdown(_run("test_memory_of_pgd_vs_loop[18-max-a]", **memory))
    assert "| 150 MiB | 330 MiB, the paper's loop | 2.2x |" in table
    short = {"candidate_seconds": 4.3e-5, "baseline_seconds": 1.46e-3, "ratio": 34}
    assert "| 0.043 ms | 1.46 ms | 34.0x |" in markdown(_run("test_if_forward_vs_spikingjelly[layer4]", **short))


def test_a_run_without_comparisons_or_from_two_machines_is_refused():
    with pytest.raises(ValueError, match="none of the comparisons"):
        markdown({"benchmarks": []})
    one, another, *_ = ROWS
    both = _run(one)["benchmarks"] + _run(another, machine="another")["benchmarks"]
    with pytest.raises(ValueError, match="mixes machines"):
        markdown({"benchmarks": both})


def test_every_row_is_a_benchmark_that_exists():
    command = [sys.executable, "-m", "pytest", "bench", "--collect-only", "-q", "-p", "no:cacheprovider"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    assert set(ROWS) <= {line.partition("::")[2] for line in listed.splitlines()}


def test_the_command_prints_the_table_and_names_a_file_it_cannot_read(tmp_path):
    file = tmp_path / "bench.json"
    command = [sys.executable, "-m", "bench.table", str(file)]
    missing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert missing.returncode == 2 and "bench.json" in missing.stderr and "Traceback" not in missing.stderr
    file.write_text(json.dumps(_run(next(iter(ROWS)))))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "4.0x" in done.stdout
