"""From what was typed to the settings of a sweep or a training."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..sweep import Settings, plan_file, weights
from ..sweep.plan import DEFAULTS


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings of given weights, the plan's, and those on the command line; the later take precedence."""
    settings = {} if getattr(arguments, "plan", None) is None else plan_file.read(arguments.plan)
    if file := getattr(arguments, "weights", None) or settings.get("weights"):
        settings = weights.settings_of(Path(file)) | settings
    for name, default in DEFAULTS.items():
        given = getattr(arguments, name, None)
        if given is None:
            continue
        if isinstance(default, tuple):
            given = tuple(item for text in given for item in text.split(",") if item)
            kind = {"eps": float, "steps": int, "restarts": int, "seeds": int}.get(name, str)
            given = tuple(_number(plan_file.flag(name), text, kind) for text in given)
        settings[name] = given
    try:
        return Settings(**settings)
    except (ValueError, TypeError) as error:  # by the names that were typed
        name, space, rest = str(error).partition(" ")
        raise type(error)(f"{plan_file.flag(name) if name in DEFAULTS else name}{space}{rest}") from None


def images_or_auto(text: str) -> int | str:
    """Return a number of images, or the word that was typed."""
    return int(text) if text.lstrip("-").isdigit() else text  # Settings says what is wrong with other words


def _number(flag: str, text: str, kind: type) -> str | int | float:
    try:
        return kind(text)
    except ValueError:
        unit = " (in 1/255)" if flag == "eps" else ""
        raise ValueError(f"{flag} holds {text!r}, expected {'whole ' if kind is int else ''}numbers{unit}.") from None
