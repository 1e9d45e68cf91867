"""Every engine finds what this process finds alone, sample by sample."""

import contextlib
import importlib.util
import os
import signal
from pathlib import Path

import pytest
import torch

from fastsnn.sweep import Ledger, Settings, run
from fastsnn.sweep.engines import Engine, OnEveryGPU, OnRay, engine, local_devices
from fastsnn.sweep.progress import Silent

SETTINGS = Settings(
    width=2,
    T=3,
    epochs=1,
    train_batch_size=120,
    images=30,
    batch_size=4,
    eps=(0, 4, 16),
    steps=(2,),
    bn=("frozen", "batch", "drift"),
    pools=("max", "avg"),
)  # of digits: workers are processes that know nothing of data sets made up by a test


def found(folder: Path, workers, on_done=lambda: None):
    """Return all samples by cell."""
    folder.mkdir()
    with Ledger.write(folder) as ledger, workers:
        number = ledger.begin_run({}, {}, {})
        for done in run(SETTINGS, ledger, number, workers, Silent()):
            if done.cells:
                on_done()
        rows = ledger.results()
        names = ("pool", "attack", "bn", "steps", "restarts", "eps_255")
        return {tuple(row[name] for name in names): ledger.samples(row["cell"]) for row in rows}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("expected")
        patch.setenv("FASTSNN_CACHE", str(folder / "cache"))
        return found(folder / "alone", Engine(SETTINGS))


def test_a_process_per_device_finds_the_same(tmp_path, expected):
    workers = OnEveryGPU(SETTINGS, ["cpu", "cpu"])
    assert workers.workers == 2
    assert found(tmp_path / "two", workers) == expected and len(expected) == 2 * 3 * 2 * 3


def test_ray_finds_the_same_though_a_worker_is_killed(tmp_path, expected):
    ray = pytest.importorskip("ray", reason='needs Ray: pip install "fastsnn[ray]"')
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("finds the worker to kill in /proc")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that two workers fit two CPUs
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        workers = OnRay(SETTINGS, None)
        assert workers.workers == 2
        killed = []

        def kill_one():
            """Kill an actor's process while it has work."""
            if not killed:
                killed.append(actors()[0])
                os.kill(killed[0], signal.SIGKILL)

        assert found(tmp_path / "ray", workers, kill_one) == expected
        assert killed and not Path(f"/proc/{killed[0]}").exists()
    finally:
        ray.shutdown()
        torch.set_num_threads(threads)


def actors() -> list[int]:
    """Return the processes in which Ray runs workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"ray::_Worker" in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def test_the_local_engine_takes_every_gpu(monkeypatch):
    assert local_devices(SETTINGS) == (["auto"] if torch.cuda.device_count() < 2 else local_devices(SETTINGS))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert local_devices(Settings()) == ["cuda:0", "cuda:1", "cuda:2"]
    assert local_devices(Settings(device="cuda:1")) == ["cuda:1"]


def test_ray_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "fastsnn\[ray\]"'):
        engine("ray", SETTINGS)
