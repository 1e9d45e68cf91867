"""What commands say on stderr: progress, and sentences about what went wrong."""

from __future__ import annotations

import argparse
import sys

from ..sweep.progress import Bars, JsonLines, Lines, Silent

PROGRESS = {"bars": Bars, "lines": Lines, "json": JsonLines, "none": Silent}


def progress_of(name: str) -> Silent:
    """Return what --progress names."""
    return PROGRESS["bars" if sys.stderr.isatty() else "lines"]() if name == "auto" else PROGRESS[name]()


def sentence(error: Exception) -> str:
    """Return what an exception says, as a sentence."""
    strerror, filename = getattr(error, "strerror", None), getattr(error, "filename", None)
    text = f"{filename}: {strerror}" if strerror and filename else str(error)
    return text if text.endswith((".", "?", '"')) else f"{text}."


def say(arguments: argparse.Namespace, sentence: str, code: int) -> int:
    """Print a sentence on stderr; return the exit code that goes with it."""
    print(f"fastsnn {arguments.command}: {sentence}", file=sys.stderr)
    return code
