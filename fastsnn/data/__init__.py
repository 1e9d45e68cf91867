"""Labelled images: uint8 pictures and their classes, by name and split."""

from __future__ import annotations

from ..ops import check
from . import digits
from .dataset import SPLITS, Dataset

__all__ = ["DATASETS", "SPLITS", "Dataset", "load"]

DATASETS = {"digits": digits.load}


def load(name: str = "digits", split: str = "train") -> Dataset:
    """Return one split of a data set, the same images in the same order every time.

    Args:
        name: "digits" (8x8 scans of handwritten digits, 10 classes, comes with scikit-learn: nothing is downloaded).
        split: "train" or "test".

    Raises:
        ValueError: an unknown name or split; the message lists the known ones.
        ImportError: a package that holds the data is missing; the message names the extra that brings it.
    """
    check.one_of("name", name, DATASETS)
    return DATASETS[name](check.one_of("split", split, SPLITS))
