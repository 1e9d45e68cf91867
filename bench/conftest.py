"""The fixtures `compare` and `compare_memory`, and the table at the end.

`compare` times a candidate against a baseline, A B A B, after their answers were compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from .machine import machine

_ROWS: list[tuple[str, float, float, str, str]] = []  # name, ours, theirs, unit, note


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
        _ROWS.append((request.node.name.removeprefix("test_"), ours * 1e3, theirs * 1e3, "ms", note(ours)))
        return theirs / ours

    return run


@pytest.fixture
def compare_memory(benchmark, request):
    """Return a function that compares the bytes that two functions return; the benchmark's own seconds mean nothing."""

    def run(candidate: Callable[[], int], baseline: Callable[[], int]):
        theirs, ours = baseline(), benchmark.pedantic(candidate, rounds=1)
        about = {"candidate_bytes": ours, "baseline_bytes": theirs, "ratio": theirs / ours, "machine": machine()}
        benchmark.extra_info.update(about)
        _ROWS.append((request.node.name.removeprefix("test_"), ours / 2**20, theirs / 2**20, "MiB", ""))

    return run


def pytest_terminal_summary(terminalreporter):
    if not _ROWS:
        return
    write = terminalreporter.write_line
    terminalreporter.section("candidate and baseline in turn, best of the rounds, answers compared first")
    write(machine())
    write(f"{'candidate vs baseline':<68} {'ours':>10} {'theirs':>10}     {'ratio':>7}")
    for name, ours, theirs, unit, note in _ROWS:
        write(f"{name:<68} {ours:>10.3f} {theirs:>10.3f} {unit:<3} {theirs / ours:>6.1f}x  {note}".rstrip())
