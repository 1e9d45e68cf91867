"""PGD on SEW-ResNets against loops on SpikingJelly; steps as graphs or one by one; throughput; memory.

Float32 products are the same on both sides: IEEE against our "fp32", TF32 against our "fast".
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator

import torch

import fastsnn

from ..pairs import Pair, pair
from .card import Card, products

HOW = {"eps": 6 / 255, "alpha": 0.01}
MODES = {"ieee": "fp32", "tf32": "fast"}
EQUAL_PLACES, EQUAL_SAMPLES = 0.999, 0.75  # after one step in float32; a spike that flips moves its sample


def against_spikingjelly(card: Card, sizes, clock) -> Iterator[dict]:
    """Yield a row for each network, batch and kind of product: (a) the paper's loop, (b) frozen weights, (c) compiled.

    The networks that are compiled come first at every size: torch.compile takes a minute for each.
    """
    for depth, pool in sizes.networks:
        for batch in sizes.batches:
            found = pair(depth, pool, batch, sizes.T, sizes.side, card.device)
            for mode, precision in MODES.items():
                if clock.is_over():
                    return
                row = {"network": f"SEW-ResNet{depth} {pool}", "batch": batch, "steps": sizes.steps, "products": mode}
                compiled = batch == sizes.batches[0] and not clock.is_over(0.5)
                with products(mode):
                    row |= _compared(card, sizes, found, precision, compiled)
                yield row


def _compared(card: Card, sizes, found: Pair, precision: str, compiled: bool) -> dict:
    if found.theirs is not None:
        found.ours.load_state_dict(found.theirs.state_dict())  # whose statistics may have drifted
    drifting = found._replace(ours=copy.deepcopy(found.ours))
    works = {
        "ours": _ours(found, precision, sizes.steps),
        "ours_drift": _ours(drifting, precision, sizes.steps, bn="drift"),
    }
    row: dict = {"precision": precision}
    if found.theirs is None:
        row["note"] = "SpikingJelly is not installed: nothing to compare with"
    else:
        works |= {name: _theirs(found, name, sizes.steps) for name in ("a", "b")}
        row |= _agreement(found, precision)
    if compiled and found.theirs is not None:
        works["c"] = _theirs(found, "b", sizes.steps, torch.compile(found.theirs, backend=sizes.compiler))
    for name, work in list(works.items()):
        try:
            for _ in range(3 if name.startswith("ours") else 1):  # the third is a replay
                work()
        except Exception as error:
            if name != "c":
                raise
            row["note"] = f"torch.compile failed: {str(error).splitlines()[0]}"
            del works["c"]
    return row | card.best_in_turns(works, sizes.turns)


def _agreement(found: Pair, precision: str) -> dict:
    """Compare a step with frozen SpikingJelly's; "fast" rounds weights, so its share is told, and not judged."""
    one, other = _ours(found, precision, 1)(), _theirs(found, "b", 1)()
    equal = (one == other).float().mean((0, 2, 3, 4))
    row = {"equal_places": float(equal.mean())}
    if precision == "fp32" and (equal >= EQUAL_PLACES).float().mean() < EQUAL_SAMPLES:
        row["wrong"] = f"one step equals SpikingJelly's in {float(equal.mean()):.1%} of places only"
    return row


def graphs(card: Card, sizes, clock) -> Iterator[dict]:
    """Yield a row for each network and batch: an attack with recorded steps, without, and gaps between kernels."""
    for depth, pool in sizes.networks:
        for batch in sizes.batches:
            if clock.is_over():
                return
            found = pair(depth, pool, batch, sizes.T, sizes.side, card.device)
            row = {"network": f"SEW-ResNet{depth} {pool}", "batch": batch, "steps": sizes.long}
            works = {name: _ours(found, "fp32", sizes.long, graph=graph) for name, graph in GRAPHS.items()}
            equal = [works[name]() for name in GRAPHS for _ in range(3)][2::3]
            row["equal_places"] = float((equal[0] == equal[1]).float().mean())
            row |= card.best_in_turns(works, sizes.turns)
            for name, work in works.items():
                row[f"{name}_idle"], row[f"{name}_longest_gap"] = idle(card, work)
            yield row


GRAPHS = {"on": "auto", "off": None}


def idle(card: Card, work: Callable) -> tuple[float | None, float | None]:
    """Return the share of time without a kernel, and the longest such gap in seconds; None where none was recorded."""
    activities = [torch.profiler.ProfilerActivity.CUDA if card.is_gpu else torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        work()
        card.wait()
    on_device = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return gaps([(event.time_range.start / 1e6, event.time_range.end / 1e6) for event in on_device])


def gaps(spans: list[tuple[float, float]]) -> tuple[float | None, float | None]:
    """Return the share of time that no span (start, end) covers, and the longest gap; spans may overlap."""
    if not spans:
        return None, None
    spans = sorted(spans)
    begin, until = spans[0]
    idle = longest = 0.0
    for start, end in spans:
        if start > until:
            idle, longest = idle + start - until, max(longest, start - until)
        until = max(until, end)
    return idle / (until - begin) if until > begin else 0.0, longest


def throughput(card: Card, sizes, clock) -> Iterator[dict]:
    """Yield images per second of whole attacks over the batch size, doubled until memory or time runs out."""
    depth, pool = sizes.networks[0]
    out: set[str] = set()
    for batch in sizes.growing:
        if clock.is_over():
            return
        found = pair(depth, pool, batch, sizes.T, sizes.side, card.device)
        row: dict = {"network": f"SEW-ResNet{depth} {pool}", "batch": batch, "steps": sizes.steps}
        for name, mode, work in _curves(found, sizes.steps):
            if name in out or clock.is_over():
                continue
            try:
                with products(mode):
                    for _ in range(2 if name in MODES.values() else 1):
                        work()
                    row[name] = batch / card.best_in_turns({name: work}, 2)[name]
            except torch.OutOfMemoryError:
                out.add(name)
                row["note"] = f"{row.get('note', '')}{name}: out of memory. "
                torch.cuda.empty_cache()
        yield row
        if len(out) == len(list(_curves(found, 1))):
            return


def _curves(found: Pair, steps: int) -> Iterator[tuple[str, str, Callable]]:
    for mode, precision in MODES.items():
        yield precision, mode, _ours(found, precision, steps)
        if found.theirs is not None:
            for loop in ("a", "b"):
                yield f"{loop}_{mode}", mode, _theirs(found, loop, steps)


def memory(card: Card, sizes, clock) -> Iterator[dict]:
    """Yield the most bytes that two steps need beyond network and input."""
    for depth, pool in sizes.networks:
        for batch in sizes.batches:
            if clock.is_over():
                return
            found = pair(depth, pool, batch, sizes.T, sizes.side, card.device)
            row: dict = {"network": f"SEW-ResNet{depth} {pool}", "batch": batch}
            for name, mode, work in _curves(found, 2):
                if mode == "ieee" or name == "fast":
                    with products(mode):
                        work()
                        row[name] = card.peak_bytes(work)
            yield row


def _ours(found: Pair, precision: str, steps: int, **how) -> Callable[[], torch.Tensor]:
    how = {**HOW, "steps": steps, "precision": precision, "random_start": False, **how}
    return functools.partial(fastsnn.attacks.pgd, found.ours, found.x, found.y, **how)


def _theirs(found: Pair, loop: str, steps: int, forward: Callable | None = None) -> Callable[[], torch.Tensor]:
    from .. import baselines

    how = {**HOW, "steps": steps} | ({"forward": forward} if forward is not None else {})
    attack = {"a": baselines.paper_pgd, "b": baselines.frozen_pgd}[loop]
    return functools.partial(attack, found.theirs, found.x, found.y, **how)
