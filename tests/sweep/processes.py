"""The command line in processes that can be killed, forked from one that has loaded torch: a start costs no seconds."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path

from fastsnn.cli import main

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["fastsnn.cli", "fastsnn.sweep", "sklearn.datasets"])


class Command:
    """`fastsnn` with these arguments, running; what it says goes to a file."""

    def __init__(self, arguments: list[str], said: Path):
        self._said = said
        said.write_text("")
        self._process = _FORKS.Process(target=_run, args=(arguments, said, os.environ["FASTSNN_CACHE"]))
        self._process.start()

    def says(self, text: str) -> None:
        """Wait until it has said this, or has ended."""
        while text not in self.said() and self._process.is_alive():
            time.sleep(0.005)

    def said(self) -> str:
        """Return what it has said so far."""
        return self._said.read_text()

    def kill(self) -> None:
        """Send SIGKILL, which nothing can catch; it may have ended before."""
        self._process.kill()

    def wait(self) -> int:
        """Return how it ended, as subprocess.Popen.wait does."""
        self._process.join()
        return self._process.exitcode


def _run(arguments: list[str], said: Path, cache: str) -> None:
    with said.open("a") as file, open(os.devnull, "w") as nothing:  # noqa: PTH123
        os.dup2(file.fileno(), 2)
        os.dup2(nothing.fileno(), 1)
    os.environ["FASTSNN_CACHE"] = cache  # the server's is that of the test that started it
    sys.exit(main(arguments))
