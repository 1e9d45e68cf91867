import numpy
import pytest
from spikingjelly.datasets.cifar10_dvs import _load_origin_data

from fastsnn.data import aedat

from .published import HEADER, address, recording


@pytest.fixture
def file(tmp_path):
    return tmp_path / "cifar10_ship_7.aedat"


def test_events_come_as_they_were_written(file):
    file.write_bytes(recording([address(3, 100, True), address(127, 0, False)], [5, 4_000_000_000]))
    found = aedat.read(file)
    assert found.t.tolist() == [5, 4_000_000_000]
    assert found.x.tolist() == [27, 127] and found.y.tolist() == [124, 0]
    assert found.p.tolist() == [0, 1], "bit 0 is set where it became darker"


@pytest.mark.parametrize("header", [HEADER, b"", b"#!AER-DAT2.0\r\n", b"# no end\n#" + bytes(range(128, 256)) + b"\n"])
def test_they_are_those_that_spikingjelly_reads_after_any_header(file, header):
    words = numpy.random.default_rng(0).integers(0, 1 << 15, (500, 2))
    file.write_bytes(header + words.astype(">u4").tobytes())
    found = aedat.read(file)
    if header and header.isascii():  # with others it stops, or takes a line of the header for an event
        theirs = _load_origin_data(file)
        for name in ("t", "x", "y", "p"):
            assert numpy.array_equal(getattr(found, name), theirs[name]), name
    assert len(found.t) == 500 and numpy.array_equal(found.t, words[:, 1])


def test_marks_of_the_cameras_own_are_no_events(file):
    file.write_bytes(recording([address(1, 2, False), 0x8000, address(1, 2, True) | 0x8000], [1, 2, 3]))
    assert aedat.read(file).t.tolist() == [1]


@pytest.mark.parametrize("cut", [1, 4, 7])
def test_a_file_that_ends_within_an_event_is_named(file, cut):
    file.write_bytes(recording([1, 2, 3])[:-cut])
    with pytest.raises(ValueError, match=f"{file} ends within an event: .*anew"):
        aedat.read(file)


@pytest.mark.parametrize("content", [b"", HEADER, HEADER[:-2], recording([0x8000])])
def test_a_file_without_events_is_named(file, content):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} holds no events"):
        aedat.read(file)


@pytest.mark.parametrize("content", [b"<html>Not found.</html>!", recording([1, 1 << 16]), recording([1 << 31])])
def test_a_file_with_something_else_in_it_is_named(file, content):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} is no recording of a DVS128 in AEDAT 2.0, or damaged"):
        aedat.read(file)


def test_another_version_is_named(file):
    file.write_bytes(b"#!AER-DAT3.1\r\n" + recording([1]))
    with pytest.raises(ValueError, match=f"{file} is in AEDAT 3.1, expected AEDAT 2.0"):
        aedat.read(file)


def test_a_missing_file_is_named(file):
    with pytest.raises(FileNotFoundError, match=str(file)):
        aedat.read(file)
