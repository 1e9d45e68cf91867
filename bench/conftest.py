"""The `compare` fixture: times a candidate against a baseline, A B A B, after their answers were compared."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from fastsnn.sweep import machine as describe

_ROWS: list[tuple[str, float, float, str]] = []


def pytest_addoption(parser):
    parser.addoption("--smoke", action="store_true", help="few rounds, small networks: proves that the bench runs")


@pytest.fixture
def smoke(request) -> bool:
    return request.config.getoption("--smoke")


@pytest.fixture
def compare(benchmark, request, smoke):
    """Return a function that compares speeds: best of `rounds`, candidate and baseline in turn, recorded both."""

    def run(
        candidate: Callable,
        baseline: Callable,
        check: Callable,
        *,
        rounds: int = 10,
        repeat: int = 1,
        note: Callable[[float], str] = lambda seconds: "",
    ):
        check(candidate(), baseline())
        seconds = []

        def timed_baseline():
            start = time.perf_counter()
            for _ in range(repeat):
                baseline()
            seconds.append((time.perf_counter() - start) / repeat)

        def timed_candidate():
            for _ in range(repeat):
                candidate()

        rounds = 2 if smoke else rounds
        benchmark.pedantic(timed_candidate, setup=timed_baseline, rounds=rounds, iterations=1)
        ours, theirs = benchmark.stats.stats.min / repeat, min(seconds)
        benchmark.extra_info.update(
            candidate_seconds=ours, baseline_seconds=theirs, ratio=theirs / ours, machine=machine(), note=note(ours)
        )
        _ROWS.append((request.node.name.removeprefix("test_"), ours, theirs, note(ours)))
        return theirs / ours

    return run


def machine() -> str:
    """Name the processor, the threads and the versions that a number belongs to."""
    about, versions = describe.describe(), describe.versions()
    return (
        f"{about['processor']}, {', '.join(about['instruction_sets'][:1])}, {torch.get_num_threads()} threads; "
        f"torch {versions['torch']}, SpikingJelly {versions['spikingjelly']}"
    )


def pytest_terminal_summary(terminalreporter):
    if not _ROWS:
        return
    write = terminalreporter.write_line
    terminalreporter.section("speed: best of the rounds, candidate and baseline in turn, answers equal")
    write(machine())
    write(f"{'candidate vs baseline':<74} {'ms':>9} {'ms':>9} {'ratio':>7}")
    for name, ours, theirs, note in _ROWS:
        write(f"{name:<74} {ours * 1e3:>9.3f} {theirs * 1e3:>9.3f} {theirs / ours:>6.1f}x  {note}")
