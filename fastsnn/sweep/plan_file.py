"""A sweep's plan as a TOML file: keys are the names of the flags of `fastsnn sweep`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ..ops import check
from .plan import DEFAULTS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# the others are named as the settings are
FLAGS = {"codings": "coding", "defences": "defence", "pools": "pool", "stems": "stem", "surrogates": "surrogate"}
FLAGS |= {"seeds": "seed"}
ONLY_FLAGS = ("engine", "address", "out", "retrain", "dry-run", "progress", "quiet")  # of the command, not of a plan


def flag(name: str) -> str:
    """Return the flag of a setting, without its dashes in front."""
    return FLAGS.get(name, name).replace("_", "-")


def read(path: Path) -> dict[str, Any]:
    """Return the settings that a plan gives; a single value stands for a list of one.

    Raises:
        ValueError: it is no TOML, has a key twice, or one that is no flag (the message names the nearest), or a flag
            that says how to run and not what.
        OSError: it cannot be read.
    """
    try:
        found = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}.") from error
    by_flag = {flag(name): name for name in DEFAULTS}
    settings, keys = {}, {}
    for key, value in found.items():
        word = key.replace("_", "-")
        if word in ONLY_FLAGS:
            raise ValueError(f"{path} has {key!r}, expected in the command only: --{word} says how to run, not what.")
        name = by_flag[check.one_of(f"a key of {path}", word, by_flag)]
        if name in keys:
            raise ValueError(f"{path} has both {keys[name]!r} and {key!r}, which are one key; expected one of them.")
        keys[name] = key
        if isinstance(DEFAULTS[name], tuple):
            value = tuple(value) if isinstance(value, list) else (value,)
        settings[name] = value
    return settings
