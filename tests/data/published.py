"""Small data sets in the formats in which the true ones are published."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy
from torchvision import datasets

from fastsnn.data import cifar10_dvs

BATCH = 12  # images in a file of CIFAR
HEADER = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# Timestamps tick is 1 us\r\n"


def write_cifar(monkeypatch, root: Path, kind: str, *, archive: bool = False) -> dict[str, tuple]:
    """Write CIFAR-10 or CIFAR-100 ("CIFAR10", "CIFAR100") with few images, and let torchvision expect its checksums.

    Return (images [N, 3, 32, 32], labels) of "train" and "test".
    """
    reader, generator = getattr(datasets, kind), numpy.random.default_rng(0)
    classes = 10 if kind == "CIFAR10" else 100
    contents, written = {}, {"train": ([], []), "test": ([], [])}
    for split, listed in (("train", reader.train_list), ("test", reader.test_list)):
        for name, _ in listed:
            pixels = generator.integers(0, 256, (BATCH, 3072), numpy.uint8)
            labels = (numpy.arange(BATCH) % 10 * (classes // 10)).tolist()
            key = "labels" if kind == "CIFAR10" else "fine_labels"
            contents[name] = pickle.dumps({"batch_label": name, key: labels, "data": pixels}, protocol=2)
            written[split][0].append(pixels.reshape(-1, 3, 32, 32))
            written[split][1].extend(labels)
    meta = {reader.meta["key"]: [f"class {i}" for i in range(classes)]}
    contents[reader.meta["filename"]] = pickle.dumps(meta, protocol=2)
    for attribute in ("train_list", "test_list"):
        listed = [[name, _md5(contents[name])] for name, _ in getattr(reader, attribute)]
        monkeypatch.setattr(reader, attribute, listed)
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": _md5(contents[reader.meta["filename"]])})
    packed = _packed(reader.base_folder, contents)
    monkeypatch.setattr(reader, "tgz_md5", _md5(packed))
    root.mkdir(parents=True, exist_ok=True)
    if archive:
        (root / reader.filename).write_bytes(packed)
    else:
        (root / reader.base_folder).mkdir()
        for name, content in contents.items():
            (root / reader.base_folder / name).write_bytes(content)
    return {split: (numpy.concatenate(pixels), labels) for split, (pixels, labels) in written.items()}


def write_cifar10_dvs(monkeypatch, root: Path, recordings: int = 4, test: int = 1, events: int = 300) -> Path:
    """Write CIFAR10-DVS with a few recordings of each class; return its folder."""
    monkeypatch.setattr(cifar10_dvs, "RECORDINGS", recordings)
    monkeypatch.setattr(cifar10_dvs, "TEST_RECORDINGS", test)
    generator = numpy.random.default_rng(1)
    for name in cifar10_dvs.CLASSES:
        (root / "cifar10_dvs" / name).mkdir(parents=True)
        for number in range(recordings):
            path = root / "cifar10_dvs" / name / f"cifar10_{name}_{number}.aedat"
            path.write_bytes(recording(generator.integers(0, 1 << 15, events)))
    return root / "cifar10_dvs"


def recording(addresses, times=None) -> bytes:
    """Return AEDAT 2.0 with such addresses, at such times."""
    times = numpy.arange(len(addresses)) * 7 if times is None else times
    return HEADER + numpy.stack([numpy.asarray(addresses), times], 1).astype(">u4").tobytes()


def address(column: int, row: int, darker: bool) -> int:
    """Return the address of a pixel, as the sensor counts."""
    return row << 8 | column << 1 | darker


def _packed(folder: str, contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()
