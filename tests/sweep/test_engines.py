"""Every engine finds what this process finds alone, sample by sample."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fastsnn.sweep import Ledger, Settings, engines, run
from fastsnn.sweep.engines import Engine, EngineError, OnEveryGPU, OnRay, engine, local_devices
from fastsnn.sweep.progress import Silent

SETTINGS = Settings(
    width=2,
    T=3,
    epochs=1,
    train_batch_size=120,
    images=14,
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
def trained(tmp_path_factory):
    """A cache for all of this file: training is this process's work, whoever attacks."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(autouse=True)
def cache(monkeypatch, trained):
    monkeypatch.setenv("FASTSNN_CACHE", str(trained))


@pytest.fixture(scope="module")
def expected(tmp_path_factory, trained):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSNN_CACHE", str(trained))
        return found(tmp_path_factory.mktemp("expected") / "alone", Engine(SETTINGS))


def test_a_process_per_device_finds_the_same(tmp_path, expected):
    workers = OnEveryGPU(SETTINGS, ["cpu", "cpu"])
    assert workers.workers == 2 and workers.arithmetic == Engine(SETTINGS).arithmetic
    assert found(tmp_path / "two", workers) == expected and len(expected) == 2 * 3 * 2 * 3


def test_a_worker_that_is_killed_is_a_sentence(tmp_path):
    def kill_one():
        os.kill(next(iter(workers._pool._processes)), signal.SIGKILL)

    workers = OnEveryGPU(SETTINGS, ["cpu"])
    with pytest.raises(EngineError, match=r"a worker process ended .* the same command goes on from there"):
        found(tmp_path / "one", workers, kill_one)


ONE_WORKER = """
import time
from fastsnn.sweep import Settings
from fastsnn.sweep.engines import OnEveryGPU

workers = OnEveryGPU(Settings(), ["cpu"])
workers._pool.submit(time.sleep, 600)
time.sleep(1)
print(*workers._pool._processes, flush=True)
time.sleep(600)
"""


def test_no_worker_outlives_a_command_that_is_killed():
    command = subprocess.Popen([sys.executable, "-c", ONE_WORKER], stdout=subprocess.PIPE, text=True)
    worker = Path("/proc", command.stdout.readline().strip())
    if not worker.exists():
        pytest.skip("looks for the worker in /proc")
    time.sleep(5)  # it may be loading torch yet
    command.kill()
    command.wait()
    deadline = time.monotonic() + 60
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(worker)


def is_alive(process: Path) -> bool:
    """Tell whether a process is there, and not only because nobody asked how it ended."""
    try:
        return "Z" not in (process / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.fixture(scope="module")
def two_nodes():
    """A Ray cluster of two nodes of three CPUs on this machine; workers have two threads each."""
    ray = pytest.importorskip("ray", reason='needs Ray: pip install "fastsnn[ray]"')
    from ray.cluster_utils import Cluster

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    cluster = Cluster()
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=3, include_dashboard=False)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield ray
    finally:
        ray.shutdown()
        cluster.shutdown()
        torch.set_num_threads(threads)


def test_ray_finds_the_same_though_a_worker_is_killed(tmp_path, expected, two_nodes):
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("finds the worker to kill in /proc")
    workers = OnRay(SETTINGS, None)
    assert workers.workers == 2, "one for each node: no worker's CPUs are on two"
    assert workers.arithmetic == Engine(SETTINGS).arithmetic
    killed = []

    def kill_one():
        """Kill an actor's process while it has work."""
        if not killed:
            killed.append(actors()[0])
            os.kill(killed[0], signal.SIGKILL)

    assert found(tmp_path / "ray", workers, kill_one) == expected
    assert killed and not Path(f"/proc/{killed[0]}").exists()


def test_ray_works_with_the_nodes_that_others_leave(two_nodes, monkeypatch):
    class Other:
        def is_there(self):
            return True

    others = []
    try:
        others += occupied(two_nodes, Other)
        monkeypatch.setattr(engines, "_START_S", 25)  # all of it goes by: the other node is taken
        with OnRay(SETTINGS, None) as workers:
            assert workers.workers == len(workers._actors) == 1
        others += occupied(two_nodes, Other)
        monkeypatch.setattr(engines, "_START_S", 1)
        with pytest.raises(EngineError, match=r"none of 2 workers .* its CPUs may be in use by others"):
            OnRay(SETTINGS, None)
    finally:
        for other in others:
            two_nodes.kill(other)


def occupied(ray, kind) -> list:
    """Fill a node of the cluster; return who does."""
    other = ray.remote(kind).options(num_cpus=3).remote()
    assert ray.get(other.is_there.remote(), timeout=60)
    return [other]


def test_ray_without_room_for_a_worker_says_so(two_nodes, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    with pytest.raises(EngineError, match=r"no node of the Ray cluster has 4 CPUs.*set OMP_NUM_THREADS to fewer"):
        OnRay(SETTINGS, None)


def test_an_address_at_which_nobody_listens_is_refused(monkeypatch):
    ray = pytest.importorskip("ray", reason='needs Ray: pip install "fastsnn[ray]"')
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # but does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for given, by_default in ((address, ""), (f"ray://{address}", ""), (None, address)):
            monkeypatch.setenv("RAY_ADDRESS", by_default)
            with pytest.raises(EngineError, match=f"no Ray cluster answers at .*{address} .*ray start --head"):
                OnRay(SETTINGS, given)


@pytest.mark.parametrize("error", [ConnectionError("Could not find any running Ray"), RuntimeError("Version mismatch")])
def test_a_cluster_that_cannot_be_joined_is_a_sentence(monkeypatch, error):
    ray = pytest.importorskip("ray", reason='needs Ray: pip install "fastsnn[ray]"')

    def refuse(**how):
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(EngineError, match=f"the Ray cluster cannot be joined: {error}"):
        OnRay(SETTINGS, "auto")


def test_workers_that_add_in_another_order_are_refused(monkeypatch):
    names = {"cuda:0": "NVIDIA A100", "cuda:1": "NVIDIA H100"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[str(device)])
    with pytest.raises(EngineError, match=r"workers differ in device \(NVIDIA A100 and NVIDIA H100\).*--device cuda:N"):
        OnEveryGPU(SETTINGS, list(names))


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
