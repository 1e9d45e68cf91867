"""The tests that need a GPU, and the kernels under compute-sanitizer, each in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

from .card import ROOT

PATIENCE = 20  # seconds to end after being asked to


def checks(card, sizes, clock) -> Iterator[dict]:
    """Yield a row for each: what it said last, and whether it is fine."""
    here = [sys.executable, "-m"]
    yield _run("pytest -m gpu", [*here, "pytest", "-m", "gpu", "-q", *sizes.tests], clock.left())
    small = [*here, "bench.gpu.small_case", card.device.type]
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if not card.is_gpu:
        yield _run("a small case of every kernel", small, clock.left())
    elif sanitizer:
        yield _run("compute-sanitizer, a small case", [sanitizer, "--error-exitcode", "9", *small], clock.left())
    else:
        yield {"check": "compute-sanitizer", "said": "not here", "fine": True}


def _run(name: str, command: list[str], seconds: float) -> dict:
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if "bench.gpu.small_case" in command else None
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
    try:
        out, _ = process.communicate(timeout=max(seconds, PATIENCE))
        stopped = ""
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # pytest then says how far it came
        try:
            out, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
        stopped = f"stopped after {seconds:.0f} s; "
    lines = [line for line in out.splitlines() if line.strip()]
    said = _verdict(lines)
    unsupported = "Device not supported" in out  # the sanitizer's word for machines that it does not run on
    row = {"check": name, "said": stopped + said, "fine": unsupported or (process.returncode == 0 and not stopped)}
    if stopped and not re.search(r"\d+ (failed|error)", said):
        row["fine"] = None  # neither passed nor failed
    return row if row["fine"] else row | {"log": lines[-200:]}


def _verdict(lines: list[str]) -> str:
    """Return pytest's closing line, or the sanitizer's, or the last."""
    for line in reversed(lines):
        if re.search(r"\d+ (passed|failed|skipped|error)|ERROR SUMMARY", line):
            return line.strip("= ")
    return lines[-1] if lines else "nothing"
