"""What csrc/cuda is compiled into: units, each a source file and the macros that choose one of its instances.

The same units whether NVRTC compiles one when it is first called or `python setup.py build_cuda` compiles all of them
beforehand. Imports nothing but the standard library: setup.py runs this file before torch is there.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import Path
from typing import NamedTuple

THREADS = 128  # of a block, as in pack.cuh
OPTIONS = ("--std=c++17", "--fmad=false")  # without contraction, spikes equal the reference's
STORAGES = {"float": 4, "bfloat16": 2, "float16": 2}  # bytes; in the order of `enum Storage` in csrc/arguments.h
SURROGATES = ("ATAN", "SIGMOID", "TRIANGLE", "RECTANGLE")  # in the order of `enum Surrogate`
SPANS = (4, 10)  # steps in registers; 10 is the paper's T, and what T above goes in (16 take 255 registers and spill)
PACK = 16  # bytes that a thread of a wide kernel moves at a time


class Unit(NamedTuple):
    """One compilation: a source file of csrc/cuda (without its ending) and its macros."""

    source: str
    macros: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return e.g. "integrate_fire-float-10-ATAN-0"."""
        return "-".join((self.source, *(macro.partition("=")[2] for macro in self.macros)))

    def options(self) -> tuple[str, ...]:
        """Return what the compiler is told."""
        return (*OPTIONS, *(f"-D{macro}" for macro in self.macros))


def integrate_fire(storage: int, steps: int, surrogate: int, leaks: bool) -> Unit:
    """Return the unit for a storage type and a surrogate (numbers of their enums), T = steps, and a leak or none."""
    return _integrate_fire(list(STORAGES)[storage], span(steps), SURROGATES[surrogate], int(leaks))


def span(steps: int) -> int:
    """Return how many steps a kernel keeps in registers at a time."""
    return next((span for span in SPANS if steps <= span), SPANS[-1])


def every_unit() -> list[Unit]:
    """Return all there are."""
    choices = itertools.product(STORAGES, SPANS, SURROGATES, (0, 1))
    return [*(_integrate_fire(*choice) for choice in choices), Unit("phase_encode"), Unit("attack_step")]


def folder() -> Path:
    """Return where the sources are: csrc of a clone, or their copy in an installed package."""
    here = Path(__file__).resolve()
    clone, installed = here.parents[2] / "csrc", here.parents[1] / "_csrc"
    return clone if clone.exists() else installed


def text(source: str) -> str:
    """Return a source with its includes in place: NVRTC has no folder to look for them, and caches see all of it."""
    return _inlined(folder() / "cuda" / f"{source}.cu", set())


def digest() -> str:
    """Return a hash of all sources and options: what a compiled unit is good for."""
    whole = "".join(text(source) for source in ("integrate_fire", "phase_encode", "attack_step"))
    return hashlib.sha256((whole + repr((OPTIONS, every_unit()))).encode()).hexdigest()


def _integrate_fire(storage: str, span: int, surrogate: str, leaks: int) -> Unit:
    values = {"STORAGE": storage, "SPAN": span, "SURROGATE": surrogate, "LEAKS": leaks}
    return Unit("integrate_fire", tuple(f"UNIT_{name}={value}" for name, value in values.items()))


def _inlined(path: Path, seen: set[Path]) -> str:
    if path in seen:
        return ""
    seen.add(path)
    whole = path.read_text().replace("#pragma once\n", "")
    return re.sub(r'#include "(.+)"\n', lambda found: _inlined((path.parent / found[1]).resolve(), seen), whole)
