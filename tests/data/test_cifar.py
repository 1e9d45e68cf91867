import functools
import http.server
import re
import sys
import threading

import pytest
import torch
from torchvision import datasets

from fastsnn import data

from .published import write_cifar

KINDS = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
every_kind = pytest.mark.parametrize("name", KINDS)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The publisher: serves a folder, whose path and address are returned."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@every_kind
@pytest.mark.parametrize("archive", [False, True])
def test_the_bytes_of_the_files_come_with_their_labels(monkeypatch, tmp_path, name, archive):
    written = write_cifar(monkeypatch, tmp_path, KINDS[name], archive=archive)
    for split, (images, labels) in written.items():
        found = data.load(name, split, tmp_path)
        assert found.images.dtype == torch.uint8 and found.images.is_contiguous()
        assert torch.equal(found.images, torch.from_numpy(images)) and len(found) == len(images)
        assert found.labels.dtype == torch.int64 and found.labels.tolist() == labels
        assert (found.name, found.split, found.num_classes) == (name, split, {"cifar10": 10, "cifar100": 100}[name])
        assert found.classes == tuple(f"class {i}" for i in range(found.num_classes))


def test_the_pixels_are_those_that_torchvision_shows(monkeypatch, tmp_path):
    write_cifar(monkeypatch, tmp_path, "CIFAR10")
    ours, theirs = data.load("cifar10", "test", tmp_path), datasets.CIFAR10(tmp_path, train=False)
    for i, (image, label) in enumerate(theirs):
        pixels = torch.tensor(list(image.get_flattened_data()), dtype=torch.uint8).view(32, 32, 3).permute(2, 0, 1)
        assert torch.equal(ours.images[i], pixels) and ours.labels[i] == label


def test_without_a_root_it_is_downloaded_to_the_cache_once(monkeypatch, server, cache):
    folder, address = server
    written = write_cifar(monkeypatch, folder, "CIFAR10", archive=True)
    archive = folder / datasets.CIFAR10.filename
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{address}/{archive.name}")
    assert torch.equal(data.load("cifar10", "test").images, torch.from_numpy(written["test"][0]))
    assert (cache / "cifar-10-batches-py" / "test_batch").is_file()
    archive.unlink()
    assert data.load("cifar10", "train").labels.tolist() == written["train"][1]


def test_a_download_with_another_checksum_is_refused(monkeypatch, server, cache):
    folder, address = server
    write_cifar(monkeypatch, folder, "CIFAR10", archive=True)
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{address}/{datasets.CIFAR10.filename}")
    (folder / datasets.CIFAR10.filename).write_bytes(b"<html>Please log in</html>")
    with pytest.raises(ValueError, match=f"{cache}/cifar-10-python.tar.gz is not the file that was published"):
        data.load("cifar10", "test")
    assert not (cache / "cifar-10-batches-py").exists()


def test_where_there_is_no_network_the_file_and_the_way_out_are_named(monkeypatch, server, cache):
    address = f"{server[1]}/not there/{datasets.CIFAR10.filename}".replace(" ", "%20")
    monkeypatch.setattr(datasets.CIFAR10, "url", address)
    with pytest.raises(OSError, match=f"{address} could not be downloaded to {cache}/.*404.*give its folder as root"):
        data.load("cifar10", "test")


@every_kind
def test_a_missing_folder_is_named_and_nothing_is_downloaded_to_it(tmp_path, name):
    reader = getattr(datasets, KINDS[name])
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/{reader.base_folder} does not exist.*{reader.url}"):
        data.load(name, "test", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"elsewhere/cifar.* does not exist"):
        data.load(name, "test", tmp_path / "elsewhere")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_missing_file_is_named(monkeypatch, tmp_path, file):
    write_cifar(monkeypatch, tmp_path, "CIFAR10")
    path = tmp_path / "cifar-10-batches-py" / file
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path} does not exist; delete .* unpack cifar-10-python.tar.gz"):
        data.load("cifar10", "train", tmp_path)


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("damage", [lambda whole: whole[:-40], lambda whole: whole[:9] + b"?" + whole[10:]])
def test_a_truncated_or_damaged_file_is_named(monkeypatch, tmp_path, file, damage):
    write_cifar(monkeypatch, tmp_path, "CIFAR10")
    path = tmp_path / "cifar-10-batches-py" / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path} is not the file that was published: its MD5 sum.*delete it"):
        data.load("cifar10", "train", tmp_path)


def test_a_damaged_archive_is_named_and_not_replaced(monkeypatch, tmp_path):
    write_cifar(monkeypatch, tmp_path, "CIFAR10", archive=True)
    path = tmp_path / datasets.CIFAR10.filename
    path.write_bytes(path.read_bytes()[:-1])
    before = path.read_bytes()
    with pytest.raises(ValueError, match=re.escape(f"{path} is not the file that was published")):
        data.load("cifar10", "train", tmp_path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_missing_torchvision_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r'CIFAR100 is read by torchvision.*pip install "fastsnn\[data\]"'):
        data.load("cifar100", "test", tmp_path)
