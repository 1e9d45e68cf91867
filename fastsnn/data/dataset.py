"""What a data set is, whatever it shows."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace

import torch

SPLITS = ("train", "test")


@dataclass(frozen=True, repr=False)
class Dataset:
    """Labelled images, or recordings of events, of one split.

    Attributes:
        images: uint8 [N, C, H, W], 0 to 255. Of events: frames, uint8 [N, T, 2, H, W], where 255 says that all of the
            sensor's pixels under that one fired in that step, 0 that none did; see cifar10_dvs.
        labels: int64 [N], 0 to num_classes - 1.
        classes: the classes' names.
        name: the data set's name, as `load` takes it.
        split: "train" or "test".
    """

    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    name: str
    split: str

    def __repr__(self) -> str:
        shape = list(self.images.shape)
        return f"Dataset({self.name!r}, {self.split!r}: uint8 {shape}, {self.num_classes} classes)"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    def sha256(self) -> str:
        """Return a hash of all images and labels: equal data, equal hash, on every machine. Computed once."""
        return self._sha256

    @functools.cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256(self.images.contiguous().numpy())
        digest.update(self.labels.contiguous().numpy())
        return digest.hexdigest()

    def first(self, count: int | None) -> Dataset:
        """Return the first images alone; None for all."""
        if count is None:
            return self
        return replace(self, images=self.images[:count], labels=self.labels[:count])
