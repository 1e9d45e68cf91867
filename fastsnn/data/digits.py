"""Handwritten digits: 1,797 scans of 8x8 pixels, the smallest real images that show what an attack does.

They come with scikit-learn (Alpaydin and Kaynak 1998, the test part of UCI's "Optical Recognition of Handwritten
Digits"), so nothing is downloaded. The networks want 32x32 colour pictures: bilinear interpolation to four times the
size, grey in three equal channels. 0 to 16 becomes 0 to 255. All sums on the way are exact in float32, so that every
machine gets the same bytes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .dataset import Dataset

_SIZE = 32
_EVERY = 5  # one image in five is a test image


def load(split: str) -> Dataset:
    """Return the 1,437 training or the 360 test digits as uint8 [N, 3, 32, 32], in the order of the source.

    The split is fixed: sorted by class, every fifth image is a test image, so that each class has its share.
    """
    grey, labels = _source()
    by_class = torch.sort(labels, stable=True).indices
    in_test = torch.zeros(len(labels), dtype=torch.bool)
    in_test[by_class[::_EVERY]] = True
    chosen = in_test if split == "test" else ~in_test
    grey = F.interpolate(grey[chosen, None], size=(_SIZE, _SIZE), mode="bilinear", align_corners=False)
    images = (grey * (255 / 16)).round().to(torch.uint8).repeat(1, 3, 1, 1)
    return Dataset(images, labels[chosen], tuple("0123456789"), "digits", split)


def _source() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scans, float32 [1797, 8, 8] from 0 to 16, and their labels, int64 [1797]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('The digits come with scikit-learn; install it with: pip install "fastsnn[sweep]"') from error
    source = load_digits()
    return torch.from_numpy(source.images).float(), torch.from_numpy(source.target).long()
