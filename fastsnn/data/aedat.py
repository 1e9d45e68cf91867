"""AEDAT 2.0, the files of jAER, as a DVS128 writes them: lines that begin with "#", then 8 bytes per event.

    address, timestamp     uint32 each, big-endian; timestamps in microseconds
    address                bit 0: 0 brighter, 1 darker; bits 1 to 7 and 8 to 14: position; bit 15: no event of a pixel

Rows and columns are turned as SpikingJelly turns them: x = 127 - bits 8 to 14, y = 127 - bits 1 to 7, p = 1 - bit 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy

SIDE = 128  # of the sensor, in pixels
_MAGIC = b"#!AER-DAT"


class Events(NamedTuple):
    """Events in the order in which they were recorded, arrays [N].

    Attributes:
        t: uint32, microseconds.
        x: int64, column, 0 to 127.
        y: int64, row, 0 to 127.
        p: int64, polarity: 1 where it became brighter, 0 where darker.
    """

    t: numpy.ndarray
    x: numpy.ndarray
    y: numpy.ndarray
    p: numpy.ndarray


def read(path: Path) -> Events:
    """Return a recording's events.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no recording of a DVS128 in AEDAT 2.0, ends within an event, or holds none.
    """
    content = path.read_bytes()
    if content.startswith(_MAGIC) and not content.startswith(_MAGIC + b"2."):
        version = content[len(_MAGIC) : 20].split()[0].decode(errors="replace")
        raise ValueError(f"{path} is in AEDAT {version}, expected AEDAT 2.0, as the data set is published.")
    start = _after_header(content)
    if (len(content) - start) % 8:
        raise ValueError(f"{path} ends within an event: it is not all there; copy or download it anew.")
    words = numpy.frombuffer(content, ">u4", offset=start).reshape(-1, 2)
    address, t = words.astype(numpy.uint32).T
    if (address >> 16).any():
        raise ValueError(f"{path} is no recording of a DVS128 in AEDAT 2.0, or damaged; copy or download it anew.")
    of_a_pixel = (address & 0x8000) == 0  # what is left are marks of the camera's own
    address, t = address[of_a_pixel].astype(numpy.int64), t[of_a_pixel]
    if not len(t):
        raise ValueError(f"{path} holds no events: it is not all there; copy or download it anew.")
    return Events(t, SIDE - 1 - (address >> 8), SIDE - 1 - (address >> 1 & 0x7F), 1 - (address & 1))


def _after_header(content: bytes) -> int:
    """Return where the events begin; the first byte of an address is 0, so no event looks like a header's line."""
    start = 0
    while content.startswith(b"#", start):
        end = content.find(b"\n", start)
        start = len(content) if end < 0 else end + 1
    return start
