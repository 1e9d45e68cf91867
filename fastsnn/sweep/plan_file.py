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
FLAGS = {"codings": "coding", "pools": "pool", "surrogates": "surrogate", "seeds": "seed"}


def flag(name: str) -> str:
    """Return the flag of a setting, without its dashes in front."""
    return FLAGS.get(name, name).replace("_", "-")


def read(path: Path) -> dict[str, Any]:
    """Return the settings that a plan gives; a single value stands for a list of one.

    Raises:
        ValueError: it is no TOML, or has a key that is no flag; the message names the nearest.
        OSError: it cannot be read.
    """
    try:
        found = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}.") from error
    by_flag = {flag(name): name for name in DEFAULTS}
    settings = {}
    for key, value in found.items():
        name = by_flag[check.one_of(f"a key of {path}", key.replace("_", "-"), by_flag)]
        if isinstance(DEFAULTS[name], tuple):
            value = tuple(value) if isinstance(value, list) else (value,)
        settings[name] = value
    return settings
