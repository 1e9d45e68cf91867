import sys

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from fastsnn import data


@pytest.fixture(scope="module")
def splits():
    return data.load("digits", "train"), data.load("digits", "test")


def test_shapes_types_and_names_are_as_promised(splits):
    for split, count, name in zip(splits, (1437, 360), ("train", "test"), strict=True):
        assert split.images.shape == (count, 3, 32, 32) and split.images.dtype == torch.uint8
        assert split.labels.shape == (count,) and split.labels.dtype == torch.int64
        assert split.classes == tuple("0123456789")
        assert (split.name, split.split, len(split)) == ("digits", name, count)
        assert split.images.min() == 0 and split.images.max() == 255


def test_it_prints_as_a_line(splits):
    assert repr(splits[1]) == "Dataset('digits', 'test': uint8 [360, 3, 32, 32], 10 classes)"


def test_three_channels_are_equal(splits):
    for split in splits:
        assert torch.equal(split.images, split.images[:, :1].expand(-1, 3, -1, -1))


def test_every_class_has_its_share_in_both_splits(splits):
    train, test = (split.labels.bincount(minlength=10) for split in splits)
    share = test / (train + test)
    assert (share > 0.19).all() and (share < 0.21).all()


def test_splits_hold_every_scan_once(splits):
    scans = torch.from_numpy(load_digits().images).float()[:, None]
    enlarged = (F.interpolate(scans, size=(32, 32), mode="bilinear") * 255 / 16).round().to(torch.uint8)
    ours = torch.cat([split.images[:, 0].flatten(1) for split in splits])
    as_set = {image.numpy().tobytes() for image in enlarged.flatten(1)}
    assert {image.numpy().tobytes() for image in ours} == as_set
    assert len(ours) == len(scans)


def test_the_same_images_come_every_time_on_every_machine(splits):
    assert splits[0].sha256() == "584850bbeee694597e9c19159aaa958a36f6dca690e02564ff36c2fd1e087942"
    assert splits[0].sha256() == data.load("digits", "train").sha256() != splits[1].sha256()


def test_the_first_test_images_show_many_classes(splits):
    assert len(splits[1].labels[:40].unique()) == 10


@pytest.mark.parametrize(("name", "split", "expected"), [("digit", "train", "'digits'"), ("digits", "tset", "'test'")])
def test_unknown_names_are_refused_with_the_near_ones(name, split, expected):
    with pytest.raises(ValueError, match=f"Did you mean {expected}"):
        data.load(name, split)


def test_a_missing_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "fastsnn\[sweep\]"'):
        data.load("digits")


def test_a_data_set_is_frozen(splits):
    with pytest.raises(AttributeError):
        splits[0].name = "other"
