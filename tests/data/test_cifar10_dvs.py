import numpy
import pytest
import torch
from spikingjelly.datasets.cifar10_dvs import _load_origin_data
from spikingjelly.datasets.utils import integrate_events_by_fixed_frames_number
from torch.nn.functional import adaptive_avg_pool2d

from fastsnn import data
from fastsnn.data import aedat, cifar10_dvs

from .published import address, recording, write_cifar10_dvs


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "frames"


@pytest.fixture
def folder(monkeypatch, tmp_path):
    return write_cifar10_dvs(monkeypatch, tmp_path)


def spikingjellys(path, T):
    """Its frames, of which we keep whether there was an event."""
    frames = integrate_events_by_fixed_frames_number(_load_origin_data(path), "number", T, 128, 128)
    return torch.from_numpy(frames).clip(max=1)


@pytest.mark.parametrize("T", [1, 4, 10, 299, 301])
def test_frames_are_spikingjellys_with_one_for_one_and_more(folder, T):
    path = folder / "cat" / "cifar10_cat_2.aedat"
    frames = cifar10_dvs.frames_of(aedat.read(path), T)
    assert frames.dtype == torch.uint8 and torch.equal(frames / 255, spikingjellys(path, T).float())
    assert frames.any()


@pytest.mark.parametrize("size", [64, 48])
def test_smaller_frames_hold_the_share_of_pixels_that_fired(folder, size):
    path = folder / "dog" / "cifar10_dog_0.aedat"
    frames = cifar10_dvs.frames_of(aedat.read(path), 3, size)
    exact = adaptive_avg_pool2d(spikingjellys(path, 3).double(), size)
    assert frames.shape == (3, 2, size, size) and (frames / 255 - exact).abs().max() <= 0.5 / 255 + 1e-7


def test_known_events_are_where_they_belong(tmp_path):
    path = tmp_path / "a.aedat"
    first = [address(0, 0, False)] * 3 + [address(1, 0, True)]
    path.write_bytes(recording([*first, *[address(127, 126, False)] * 5]))
    frames = cifar10_dvs.frames_of(aedat.read(path), 2)
    assert frames.nonzero().tolist() == [[0, 0, 126, 127], [0, 1, 127, 127], [1, 1, 0, 1]]
    assert set(frames.unique().tolist()) == {0, 255}
    small = cifar10_dvs.frames_of(aedat.read(path), 2, 64)
    assert small[1, 1, 0, 0] == 64, "one pixel of four fired: a quarter of 255"


def test_splits_are_by_number_and_show_all_classes_from_the_first(folder):
    train, test = (data.load("cifar10_dvs", split, folder.parent, T=4, size=48) for split in ("train", "test"))
    assert train.images.shape == (30, 4, 2, 48, 48) and test.images.shape == (10, 4, 2, 48, 48)
    assert train.images.dtype == torch.uint8 and train.labels.dtype == torch.int64
    assert test.labels.tolist() == list(range(10)) and train.labels.tolist() == list(range(10)) * 3
    assert test.classes[3] == "cat" and test.num_classes == 10 and (test.name, test.split) == ("cifar10_dvs", "test")
    for images, label, number in ((test.images, 3, 0), (train.images[10:], 3, 2), (train.images[20:], 9, 3)):
        path = folder / test.classes[label] / f"cifar10_{test.classes[label]}_{number}.aedat"
        assert torch.equal(images[label], cifar10_dvs.frames_of(aedat.read(path), 4, 48))


def test_the_split_of_the_true_files_is_spikingjellys():
    assert (cifar10_dvs.RECORDINGS, cifar10_dvs.TEST_RECORDINGS) == (1000, 100)


def test_frames_are_read_once_and_again_when_a_file_changed(folder, monkeypatch, cache):
    read, seen = aedat.read, []
    monkeypatch.setattr(aedat, "read", lambda path: seen.append(path) or read(path))
    how = {"T": 2, "size": 64}
    first = data.load("cifar10_dvs", "test", folder.parent, **how)
    again = data.load("cifar10_dvs", "test", folder.parent, **how)
    assert len(seen) == 10 and first.sha256() == again.sha256() and torch.equal(first.images, again.images)
    data.load("cifar10_dvs", "test", folder.parent, T=3, size=64)
    data.load("cifar10_dvs", "test", folder.parent, T=2, size=48)
    assert len(seen) == 30
    path = folder / "frog" / "cifar10_frog_0.aedat"
    path.write_bytes(recording([address(9, 9, False)]))
    changed = data.load("cifar10_dvs", "test", folder.parent, **how)
    assert len(seen) == 40 and (changed.images != first.images).flatten(1).any(1).nonzero().tolist() == [[6]]
    assert sorted(file.name.split("-")[2] for file in cache.iterdir()) == ["2x48", "2x64", "2x64", "3x64"]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_a_damaged_file_in_the_cache_is_made_anew(folder, cache, damage):
    expected = data.load("cifar10_dvs", "test", folder.parent, T=2).images.clone()
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-100] if damage is None else damage)
    assert torch.equal(data.load("cifar10_dvs", "test", folder.parent, T=2).images, expected)


def test_who_writes_to_the_frames_does_not_write_to_the_cache(folder):
    found = data.load("cifar10_dvs", "test", folder.parent, T=2)
    found.images[:] = 7
    assert not torch.equal(data.load("cifar10_dvs", "test", folder.parent, T=2).images, found.images)


def test_a_damaged_recording_is_named_and_nothing_is_cached(folder, cache):
    path = folder / "ship" / "cifar10_ship_0.aedat"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=f"{path} ends within an event"):
        data.load("cifar10_dvs", "test", folder.parent)
    assert not any(cache.iterdir())


def test_what_is_missing_is_named_with_the_file_that_brings_it(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/cifar10_dvs/airplane does not exist: download airplane.zip"):
        data.load("cifar10_dvs", "test", tmp_path / "nowhere")
    path = folder / "horse" / "cifar10_horse_3.aedat"
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path} does not exist: download horse.zip of .* to {folder}"):
        data.load("cifar10_dvs", "train", folder.parent)


def test_without_a_root_it_is_sought_in_the_cache(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/cache/data/cifar10_dvs/airplane does not exist"):
        data.load("cifar10_dvs")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 32}, "size is 32, expected one of 128, 64, 48"),
        ({"T": 0}, "T is 0, expected an integer of at least 1"),
    ],
)
def test_bad_options_are_refused_before_a_file_is_looked_for(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        data.load("cifar10_dvs", "test", tmp_path, **wrong)


def test_more_frames_than_events_leaves_the_first_empty(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(recording([address(5, 6, True)] * 2))
    frames = cifar10_dvs.frames_of(aedat.read(path), 4)
    assert not frames[:3].any() and numpy.count_nonzero(frames[3].numpy()) == 1
