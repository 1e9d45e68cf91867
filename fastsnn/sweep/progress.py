"""What a sweep tells while it works: bars on a terminal, plain lines elsewhere, JSON for programs, or nothing."""

from __future__ import annotations

import json
import sys
import time
from typing import TextIO

_EVERY_S = 5.0  # between two lines of a stage


class Silent:
    """Keeps silent; also the list of what a sweep tells. Every kind of progress is used as a context manager."""

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        """Take down what is shown."""

    def cells(self, total: int) -> None:
        """Tell how many cells there are in all."""

    def cells_done(self, count: int) -> None:
        """Count cells that are saved."""

    def start(self, name: str, images: int) -> None:
        """Begin a stage that will go over so many images."""

    def advance(self, images: int, note: str = "") -> None:
        """Count images that are done; `note` is what there is to say about them."""

    def finish(self, note: str = "") -> None:
        """End the stage."""

    def say(self, sentence: str) -> None:
        """Tell something out of turn."""


class Lines(Silent):
    """A line when a stage begins, every few seconds, and when it ends: for files and pipes."""

    def __init__(self, file: TextIO | None = None, every_s: float = _EVERY_S):
        self.file, self.every_s, self.saved = file or sys.stderr, every_s, 0

    def cells(self, total: int) -> None:
        """Remember how many cells there are."""
        self.total = total

    def cells_done(self, count: int) -> None:
        """Tell how many cells are saved."""
        self.saved += count
        if count:
            self.say(f"{self.saved}/{self.total} cells saved")

    def start(self, name: str, images: int) -> None:
        """Begin a stage."""
        self.name, self.images, self.done = name, images, 0
        self.began = self.told = time.monotonic()
        self.say(f"{name}: {images} images")

    def advance(self, images: int, note: str = "") -> None:
        """Count images, and tell if nothing was told for a while."""
        self.done += images
        now = time.monotonic()
        if now - self.told >= self.every_s and self.done < self.images:
            self.told = now
            took = now - self.began
            left = f"{took * (self.images - self.done) / self.done:.0f} s left"
            parts = (f"{self.done}/{self.images} images", f"{_rate(self.done, took)} images/s", left, note)
            self.say(f"{self.name}: {', '.join(filter(None, parts))}")

    def finish(self, note: str = "") -> None:
        """End the stage with its time."""
        self.say(_done(self.name, self.began, note))

    def say(self, sentence: str) -> None:
        """Print a line."""
        print(sentence, file=self.file, flush=True)


class JsonLines(Silent):
    """A JSON object per line and event, with "event" and "seconds" since the start: for programs that watch."""

    def __init__(self, file: TextIO | None = None):
        self.file, self.began = file or sys.stderr, time.monotonic()

    def _tell(self, event: str, **about) -> None:
        seconds = round(time.monotonic() - self.began, 3)
        print(json.dumps({"event": event, "seconds": seconds, **about}), file=self.file, flush=True)

    def cells(self, total: int) -> None:
        """Tell how many cells there are."""
        self._tell("cells", total=total)

    def cells_done(self, count: int) -> None:
        """Tell of cells that are saved."""
        self._tell("saved", cells=count)

    def start(self, name: str, images: int) -> None:
        """Tell that a stage begins."""
        self.name = name
        self._tell("start", stage=name, images=images)

    def advance(self, images: int, note: str = "") -> None:
        """Tell of a batch."""
        self._tell("advance", stage=self.name, images=images, note=note)

    def finish(self, note: str = "") -> None:
        """Tell that a stage ends."""
        self._tell("finish", stage=self.name, note=note)

    def say(self, sentence: str) -> None:
        """Tell a sentence."""
        self._tell("say", sentence=sentence)


class Bars(Silent):
    """A bar for all cells and one for the stage at work, with images per second and the time left: for terminals."""

    def __init__(self):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>10}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )

    def __enter__(self):
        self.bars.start()
        return self

    def __exit__(self, *exception) -> None:
        """Leave the bars as they stand."""
        self.bars.stop()

    def cells(self, total: int) -> None:
        """Begin the bar of all cells."""
        self.of_cells = self.bars.add_task("cells saved", total=total, rate="", note="")

    def cells_done(self, count: int) -> None:
        """Move it."""
        self.bars.update(self.of_cells, advance=count)

    def start(self, name: str, images: int) -> None:
        """Begin a stage with a bar of its own."""
        self.task = self.bars.add_task(name, total=images, rate="", note="")
        self.name, self.done, self.began = name, 0, time.monotonic()

    def advance(self, images: int, note: str = "") -> None:
        """Move the bar."""
        self.done += images
        rate = _rate(self.done, time.monotonic() - self.began)
        self.bars.update(self.task, advance=images, rate=f"{rate} img/s", note=note)

    def finish(self, note: str = "") -> None:
        """Replace the bar by a line: a terminal has few rows."""
        self.bars.remove_task(self.task)
        self.say(_done(self.name, self.began, note))

    def say(self, sentence: str) -> None:
        """Print a line above the bars."""
        self.bars.console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _done(name: str, began: float, note: str) -> str:
    parts = (f"done in {time.monotonic() - began:.1f} s", note)
    return f"{name}: {', '.join(filter(None, parts))}"


def _rate(images: int, seconds: float) -> str:
    rate = images / max(seconds, 1e-9)
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
