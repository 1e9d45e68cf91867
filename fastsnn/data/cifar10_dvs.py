"""CIFAR10-DVS (Li et al. 2017): 10,000 recordings of moving CIFAR-10 images by an event camera, 128x128.

The files are those published (figshare 4724671), unpacked: root/cifar10_dvs/<class>/cifar10_<class>_<number>.aedat,
1,000 of each class. There is no official split. Here, as in SpikingJelly's CIFAR10DVSTEBNSplit and the works that
follow Duan et al. 2022, numbers 0 to 99 of each class are the test recordings, 100 to 999 the training recordings;
accuracies are not comparable with those on random splits.

A recording becomes T frames of equally many events each (the last takes what is left over), as with SpikingJelly's
split_by="number". A pixel of a frame is 1 where it fired at least once, in channel 0 where it became darker, in channel
1 where brighter. How often it fired is dropped: an attack keeps its input within [0, 1], and so must the input begin.
Smaller frames hold the mean over the pixels under each of theirs (adaptive average pooling). All of it is kept as
uint8, 255 for 1: a quarter of float32's memory, and exact at 128 and, to 1/510, at 64 and 48.

Frames are cached on the disk, since reading recordings takes a minute and more; the cache's file is mapped into memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy
import torch
from torch.nn.functional import adaptive_avg_pool2d

from .. import files
from ..ops import check
from . import aedat
from .dataset import Dataset

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZE = aedat.SIDE
SIZES = (SIZE, 64, 48)
RECORDINGS, TEST_RECORDINGS = 1000, 100  # of each class
_RECIPE = 1  # of frames: raise it when a change of code changes them, so that no cache serves old ones
_URL = "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671"


def load(split: str, root: str | os.PathLike | None = None, T: int = 10, size: int = SIZE) -> Dataset:
    """Return the 9,000 training or the 1,000 test recordings as frames uint8 [N, T, 2, size, size].

    They are in order of number, then of class, so that the first of them show all classes.

    Raises:
        FileNotFoundError: a folder or a file is missing; the message says what is to be put there.
        ValueError: T or size is wrong, or a file is no whole recording; the message names it.
        OSError: the cache cannot be written to.
    """
    check.integer("T", T, at_least=1)
    check_size("size", size)
    folder = (files.cache("data") if root is None else Path(root).expanduser()) / "cifar10_dvs"
    numbers = range(TEST_RECORDINGS) if split == "test" else range(TEST_RECORDINGS, RECORDINGS)
    chosen = [(label, _path(folder, name, number)) for number in numbers for label, name in enumerate(CLASSES)]
    labels, paths = zip(*chosen, strict=True)
    return Dataset(_frames(paths, split, T, size), torch.tensor(labels), CLASSES, "cifar10_dvs", split)


def frames_of(events: aedat.Events, T: int, size: int = SIZE) -> torch.Tensor:
    """Return a recording's frames, uint8 [T, 2, size, size], 0 to 255: which share of the pixels under each fired."""
    share, side = len(events.t) // T, aedat.SIDE
    step = numpy.repeat(numpy.arange(T), [share] * (T - 1) + [len(events.t) - share * (T - 1)])
    fired = numpy.zeros(T * 2 * side * side, numpy.uint8)
    fired[((step * 2 + events.p) * side + events.y) * side + events.x] = 255
    frames = torch.from_numpy(fired).view(T, 2, side, side)
    return frames if size == side else adaptive_avg_pool2d(frames.float(), size).round().to(torch.uint8)


def check_size(name: str, value: object) -> None:
    """Raise a TypeError or ValueError that says so if `value` is no size of frames."""
    if check.integer(name, value, at_least=1) not in SIZES:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(str, SIZES))}.")


def _path(folder: Path, name: str, number: int) -> Path:
    return folder / name / f"cifar10_{name}_{number}.aedat"


def _frames(paths: tuple[Path, ...], split: str, T: int, size: int) -> torch.Tensor:
    """Return the frames of all recordings, from the cache if these files, as they are now, were read before."""
    made_of = [_RECIPE, T, size, [_identity(path) for path in paths]]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    cached = files.cache("frames") / f"cifar10_dvs-{split}-{T}x{size}-{key}.npy"
    shape = (len(paths), T, 2, size, size)
    found = _mapped(cached)
    if found is None or found.shape != shape:
        with files.replaced(cached) as beside:
            made = numpy.lib.format.open_memmap(beside, "w+", numpy.uint8, shape)
            for i, path in enumerate(paths):
                made[i] = frames_of(aedat.read(path), T, size).numpy()
            made.flush()
        found = _mapped(cached)
    return torch.from_numpy(found)


def _mapped(file: Path) -> numpy.ndarray | None:
    """Return what a cached file holds, or None if there is none or it is damaged; who writes to it changes a copy."""
    try:
        return numpy.load(file, mmap_mode="c")
    except (FileNotFoundError, ValueError, EOFError):
        return None


def _identity(path: Path) -> list:
    """Return what tells whether a file is still the one that was read."""
    try:
        about = path.stat()
    except FileNotFoundError:
        missing = path if path.parent.is_dir() else path.parent
        raise FileNotFoundError(
            f"{missing} does not exist: download {path.parent.name}.zip of {_URL}, and unpack it to "
            f"{path.parent.parent}."
        ) from None
    return [str(path.resolve()), about.st_size, about.st_mtime_ns]
