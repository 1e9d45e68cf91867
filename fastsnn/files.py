"""Files that are whole or not there (whoever dies while writing leaves the old one in place), and the cache's folders.

What is cached lies in $FASTSNN_CACHE, by default ~/.cache/fastsnn (or $XDG_CACHE_HOME/fastsnn), and can be deleted at
any time.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Put `content` in `path` at once: written beside it, flushed to the disk, then renamed over it."""
    with replaced(path) as beside:
        beside.write_bytes(content)


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write a file to, which takes the place of `path` at the end, or is gone if it fails.

    Raises:
        OSError: it cannot be written; with `path` where the system names none, as on a full disk.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # threads and machines may share a folder
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        if error.filename is None and error.errno:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        beside.unlink(missing_ok=True)


def cache(name: str) -> Path:
    """Return the cache's folder for one kind of thing, made if need be.

    Raises:
        OSError: it cannot be made or written to.
    """
    folder = cache_path(name)
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} cannot be written to; set FASTSNN_CACHE to a folder that can")
    return folder


def cache_path(name: str) -> Path:
    """Return where that folder is, or would be."""
    home = os.environ.get("FASTSNN_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fastsnn"
    )
    return Path(home).expanduser() / name
