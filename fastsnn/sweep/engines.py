"""Where a sweep's attacks are computed: in this process, in one process per GPU, or on a Ray cluster.

All three give the same outcomes: what becomes of an image does not depend on who attacks it. A worker holds one network
at a time; none of them writes anything.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.util
import multiprocessing
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from . import networks, plan
from .attacker import Attacker
from .ledger import Outcome
from .plan import DEFAULTS, Network, Pass, Settings
from .progress import Silent

ENGINES = ("local", "ray")
_START_S = 120.0  # that Ray's workers have to load torch and answer


class EngineError(Exception):
    """Workers that cannot be had, or are lost; the message is a sentence that says what to do."""


@dataclass(frozen=True)
class Task:
    """Some images of one pass; `number` is the pass's."""

    number: int
    network: Network
    cells: Pass
    images: range

    def __str__(self) -> str:
        first = self.cells[0]
        parts = [first.attack if first.attack == "fgsm" else f"{first.attack}-{first.steps}"]
        parts += [f"{first.restarts} restarts"] if first.restarts > 1 else []
        parts += [f"bn {first.bn}"] if first.bn not in DEFAULTS["bn"] else []
        parts += [first.surrogate] if first.surrogate not in DEFAULTS["surrogates"] else []
        parts.append(f"eps {first.eps:g}" if len(self.cells) == 1 else f"{len(self.cells)} eps")
        return f"{self.network}: {', '.join(parts)}"


Outcomes = Iterator[tuple[Task, list[Outcome]]]


class Engine:
    """In this process, on one device. Every engine is used as a context manager.

    Attributes:
        workers: how many there are.
        arithmetic: the order in which they add, see networks.arithmetic; one and the same for all.
    """

    workers = 1

    def __init__(self, settings: Settings):
        device = plan.device(settings.device)
        self.arithmetic = networks.arithmetic(device)
        self._attacker = Attacker(settings, device)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception) -> None:
        """Stop the workers."""

    def attack(self, state: dict[str, torch.Tensor], tasks: list[Task], progress: Silent) -> Outcomes:
        """Yield tasks, all of one network with weights `state`, as they are done, in any order."""
        for task in tasks:
            if not self._attacker.holds(task.network):
                self._attacker.take(task.network, state)
            progress.start(str(task), len(task.images))
            outcomes = self._attacker.attack(task.cells, task.images, progress.advance)
            progress.finish(_note(outcomes))
            yield task, outcomes


class OnEveryGPU(Engine):
    """One process per GPU of this machine."""

    def __init__(self, settings: Settings, devices: list[str]):
        self.workers = len(devices)
        self.arithmetic = _one([networks.arithmetic(torch.device(device)) for device in devices])
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        for device in devices:
            queue.put(device)
        how = {"initializer": _begin_worker, "initargs": (settings, queue, torch.get_num_threads())}
        self._pool = concurrent.futures.ProcessPoolExecutor(self.workers, context, **how)

    def __exit__(self, *exception) -> None:
        """Stop the workers; what they still compute is dropped."""
        self._pool.shutdown(wait=exception[0] is None, cancel_futures=True)

    def attack(self, state: dict[str, torch.Tensor], tasks: list[Task], progress: Silent) -> Outcomes:
        """See Engine.attack."""
        content = _packed(state)
        waiting = {self._pool.submit(_in_worker, content, task): task for task in tasks}
        with _shown_together(tasks, progress):
            for future in concurrent.futures.as_completed(waiting):
                task = waiting[future]
                try:
                    outcomes = future.result()
                except concurrent.futures.process.BrokenProcessPool:
                    raise EngineError(
                        "a worker process ended in the middle of its work, killed by somebody or for lack of memory; "
                        "what was finished is saved, and the same command goes on from there"
                    ) from None
                progress.advance(len(task.images))
                yield task, outcomes


class OnRay(Engine):
    """One actor per GPU of a Ray cluster (without GPUs: per few CPUs). What a lost worker had is attacked again."""

    def __init__(self, settings: Settings, address: str | None):
        if importlib.util.find_spec("ray") is None:
            raise ImportError('--engine ray needs ray; install with: pip install "fastsnn[ray]"')
        import ray

        self._ray, self._is_mine = ray, not ray.is_initialized()
        if self._is_mine:
            _try(address or os.environ.get("RAY_ADDRESS", ""))
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, RuntimeError) as error:  # no cluster, or one of another version of Ray or Python
                raise EngineError(f"the Ray cluster cannot be joined: {error}") from error
        try:
            self._start(settings)
        except BaseException:
            self.__exit__()
            raise

    def _start(self, settings: Settings) -> None:
        """Start as many actors as there is room for on each node, and keep those that answer."""
        self._actors = []
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        threads = torch.get_num_threads()
        gpus = sum(int(node.get("GPU", 0)) for node in nodes) if settings.device != "cpu" else 0
        count = gpus or sum(int(node.get("CPU", 0)) // threads for node in nodes)
        if not count:
            raise EngineError(
                f"no node of the Ray cluster has {threads} CPUs, one for each of a worker's threads; "
                "set OMP_NUM_THREADS to fewer"
            )
        # Ray starts an actor anew when its process or node is gone, and runs its unfinished calls again
        options = {"max_restarts": -1, "max_task_retries": -1}
        options |= {"num_gpus": 1} if gpus else {"num_cpus": threads}
        actor = self._ray.remote(_Worker).options(**options)
        self._actors = [actor.remote(settings, "cuda" if gpus else "cpu", threads) for _ in range(count)]
        asked = {one.arithmetic.remote(): one for one in self._actors}
        answered, silent = self._ray.wait(list(asked), num_returns=count, timeout=_START_S)
        if not answered:
            raise EngineError(
                f"none of {count} workers of the Ray cluster began within {_START_S:.0f} s; its "
                f"{'GPUs' if gpus else 'CPUs'} may be in use by others (`ray status` tells)"
            )
        for one in silent:  # others have its place
            self._ray.kill(asked[one])
        self._actors, self.workers = [asked[one] for one in answered], len(answered)
        self.arithmetic = _one([self._got(one) for one in answered])

    def _got(self, answer):
        try:
            return self._ray.get(answer)
        except self._ray.exceptions.RayActorError as error:  # where a worker is lost, Ray would try again
            raise EngineError(f"a worker of the Ray cluster cannot begin: {error}") from error

    def __exit__(self, *exception) -> None:
        """Stop the actors, and Ray if it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._is_mine:
            self._ray.shutdown()

    def attack(self, state: dict[str, torch.Tensor], tasks: list[Task], progress: Silent) -> Outcomes:
        """See Engine.attack: every actor has one task at a time, so that none waits behind a slow one."""
        shared, left, running = self._ray.put(_packed(state)), list(reversed(tasks)), {}
        with _shown_together(tasks, progress):
            for actor in self._actors:
                if left:
                    task = left.pop()
                    running[actor.attack.remote(shared, task)] = (actor, task)
            while running:
                (done,), _ = self._ray.wait(list(running), num_returns=1)
                actor, task = running.pop(done)
                outcomes = self._got(done)
                if left:
                    following = left.pop()
                    running[actor.attack.remote(shared, following)] = (actor, following)
                progress.advance(len(task.images))
                yield task, outcomes


def engine(name: str, settings: Settings, address: str | None = None) -> Engine:
    """Return the engine called `name`, ready to work.

    Args:
        name: "local" (this process, or with device "auto" or "cuda" a process for each of several GPUs) or "ray".
        settings: the sweep's.
        address: of the Ray cluster; None starts one on this machine, or takes what RAY_ADDRESS names.

    Raises:
        ImportError: Ray is asked for and not installed.
        EngineError: the Ray cluster does not answer, has no room, or its workers would not compute alike.
    """
    if name == "ray":
        return OnRay(settings, address)
    devices = local_devices(settings)
    return Engine(settings) if len(devices) == 1 else OnEveryGPU(settings, devices)


def local_devices(settings: Settings) -> list[str]:
    """Return the devices that the local engine works on."""
    if settings.device in ("auto", "cuda") and torch.cuda.device_count() > 1:
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [settings.device]


class _Worker:
    """An attacker in a process of its own."""

    def __init__(self, settings: Settings, device: str, threads: int):
        torch.set_num_threads(threads)
        self._device = torch.device(device)
        self._attacker = Attacker(settings, self._device)

    def arithmetic(self) -> dict:
        """Return in which order this worker adds."""
        return networks.arithmetic(self._device)

    def attack(self, content: bytes, task: Task) -> list[Outcome]:
        """Return what becomes of a task's images; `content` holds the network's weights."""
        import safetensors.torch

        if not self._attacker.holds(task.network):
            self._attacker.take(task.network, safetensors.torch.load(content))
        return self._attacker.attack(task.cells, task.images)


_worker: _Worker | None = None  # of this process, where it is one of a pool


def _begin_worker(settings: Settings, queue: multiprocessing.Queue, threads: int) -> None:
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = _Worker(settings, queue.get(), threads)


def _end_with_parent() -> None:
    """Wait until the command is gone, killed perhaps, and end: a worker left over would keep its GPU's memory."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _in_worker(content: bytes, task: Task) -> list[Outcome]:
    return _worker.attack(content, task)


def _one(found: Sequence[dict]) -> dict:
    """Return what all workers say of their arithmetic, or raise an EngineError where they differ."""
    other = next((one for one in found if one != found[0]), None)
    if other is None:
        return found[0]
    (name, first, second) = next((name, found[0][name], other[name]) for name in other if other[name] != found[0][name])
    raise EngineError(
        f"workers differ in {name} ({first} and {second}), so that a result would depend on who found it; "
        "expected workers of one kind: leave out the others, or name one GPU with --device cuda:N"
    )


def _try(address: str) -> None:
    """Raise an EngineError if nobody listens at a HOST:PORT; Ray itself would go on trying, without a word."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "auto", "local" and others
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise EngineError(
            f"no Ray cluster answers at {address} ({error}); start one with `ray start --head`, or leave --address out"
        ) from error


def _packed(state: dict[str, torch.Tensor]) -> bytes:
    """Return weights as one piece: hundreds of tensors would be sent as hundreds of open files."""
    import safetensors.torch

    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in state.items()})


@contextlib.contextmanager
def _shown_together(tasks: list[Task], progress: Silent) -> Iterator[None]:
    """Show all tasks of a network as one piece of work."""
    if tasks:
        progress.start(f"{tasks[0].network}: attacks", sum(len(task.images) for task in tasks))
    yield
    if tasks:
        progress.finish()


def _note(outcomes: list[Outcome]) -> str:
    return f"{100 * min(outcome.correct.mean() for outcome in outcomes):.1f} %"
