"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), read by torchvision, which checks every file by its MD5 sum.

Pixels stay the bytes they are in the files: no normalisation, no augmentation. CIFAR-100 has its 100 fine classes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import files
from .dataset import Dataset

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10


def load10(split: str, root: str | os.PathLike | None = None) -> Dataset:
    """Return the 50,000 training or the 10,000 test images of CIFAR-10, uint8 [N, 3, 32, 32], in the files' order."""
    return _load("cifar10", "CIFAR10", split, root)


def load100(split: str, root: str | os.PathLike | None = None) -> Dataset:
    """Return those of CIFAR-100."""
    return _load("cifar100", "CIFAR100", split, root)


def _load(name: str, kind: str, split: str, root: str | os.PathLike | None) -> Dataset:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ImportError(f'{kind} is read by torchvision; install it with: pip install "fastsnn[data]"') from error
    reader = getattr(datasets, kind)
    folder = files.cache("data") if root is None else Path(root).expanduser()
    if not (folder / reader.base_folder).is_dir():
        _unpack(reader, folder, may_download=root is None)
    try:
        source = reader(folder, train=split == "train")
    except Exception as error:  # pickle raises whatever a file makes it do
        raise _what_is_wrong(reader, folder, error) from error
    images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
    return Dataset(images, torch.tensor(source.targets), tuple(source.classes), name, split)


def _unpack(reader: type[CIFAR10], folder: Path, *, may_download: bool) -> None:
    """Unpack the archive, downloaded first if need be; its checksum is looked at before."""
    from torchvision.datasets.utils import check_integrity, download_url, extract_archive

    archive = folder / reader.filename
    if may_download:
        try:
            download_url(reader.url, folder, reader.filename, reader.tgz_md5)
        except RuntimeError as error:  # what came has another checksum
            raise _damaged(archive, reader) from error
        except OSError as error:
            raise OSError(
                f"{reader.url} could not be downloaded to {archive} ({error}). Where there is no network, bring that "
                "file from elsewhere, and give its folder as root."
            ) from error
    elif not archive.is_file():
        raise FileNotFoundError(
            f"{folder / reader.base_folder} does not exist, nor does {archive}: download {reader.url} to {folder}, "
            "or give no root, and it will be downloaded to the cache."
        )
    elif not check_integrity(archive, reader.tgz_md5):
        raise _damaged(archive, reader)
    extract_archive(archive, folder)


def _what_is_wrong(reader: type[CIFAR10], folder: Path, error: Exception) -> Exception:
    """Return what torchvision's error is about: it names no file."""
    from torchvision.datasets.utils import check_integrity

    listed = [*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])]
    for name, md5 in listed:
        path = folder / reader.base_folder / name
        if not path.is_file():
            return FileNotFoundError(
                f"{path} does not exist; delete {path.parent}, and unpack {reader.filename} of {reader.url} anew."
            )
        if not check_integrity(path, md5):
            return _damaged(path, reader)
    return ValueError(f"{folder / reader.base_folder} cannot be read by torchvision: {error!r}.")


def _damaged(path: Path, reader: type[CIFAR10]) -> ValueError:
    return ValueError(
        f"{path} is not the file that was published: its MD5 sum is another (damaged, or not all there); delete it, "
        f"and take {reader.filename} of {reader.url} anew."
    )
