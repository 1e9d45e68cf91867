"""Labelled images and event recordings, by name and split: uint8 tensors, their classes, and the classes' names."""

from __future__ import annotations

import os

from ..ops import check
from . import cifar, cifar10_dvs, digits
from .dataset import SPLITS, Dataset

__all__ = ["DATASETS", "EVENTS", "SIDE", "SPLITS", "Dataset", "load"]

SIDE = 32  # height and width of images, in pixels
EVENTS = ("cifar10_dvs",)  # recordings, that is frames over time; the others are images
DATASETS = {"digits": digits.load, "cifar10": cifar.load10, "cifar100": cifar.load100, "cifar10_dvs": cifar10_dvs.load}
_FROM_FILES = ("cifar10", "cifar100", *EVENTS)


def load(
    name: str = "digits",
    split: str = "train",
    root: str | os.PathLike | None = None,
    *,
    T: int = 10,
    size: int = cifar10_dvs.SIZE,
) -> Dataset:
    """Return one split of a data set, the same images in the same order every time.

    Args:
        name: "digits" (8x8 scans of handwritten digits, 10 classes, comes with scikit-learn: nothing is downloaded),
            "cifar10" and "cifar100" (Krizhevsky 2009: 50,000 and 10,000 images of 32x32) or "cifar10_dvs" (Li et al.
            2017: 9,000 and 1,000 recordings of an event camera, as frames).
        split: "train" or "test".
        root: a folder that holds the files as they are published, or will: `cifar-10-batches-py`, `cifar-100-python`
            (or the archives of both), `cifar10_dvs/<class>/*.aedat`. Nothing is downloaded to it. None is the folder
            `data` of fastsnn's cache, to which the CIFARs are downloaded. The digits need neither.
        T: frames that a recording of events is divided in; 10 as the paper's time steps. Images have none.
        size: height and width of the frames: 128 as recorded, 64 or 48. Images come as they are.

    Raises:
        ValueError: an unknown name or split (the message lists the known ones), or a file that is damaged.
        FileNotFoundError: a folder or a file is missing; the message names it, and says what is to be put there.
        OSError: a download failed, or the cache cannot be written to.
        ImportError: a package that holds or reads the data is missing; the message names the extra that brings it.
    """
    check.one_of("name", name, DATASETS)
    check.one_of("split", split, SPLITS)
    options = {"root": root} if name in _FROM_FILES else {}
    if name in EVENTS:
        options |= {"T": T, "size": size}
    return DATASETS[name](split, **options)
