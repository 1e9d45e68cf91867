import hashlib

import pytest
import torch

from fastsnn.ops import library
from fastsnn.ops.fingerprint import CHUNK, fingerprint

COUNTS = [0, 1, 2, 3, 15, 16, 63, 64, 65, 127, 129, CHUNK // 4 - 1, CHUNK // 4, CHUNK // 4 + 1, CHUNK + 77]


@pytest.mark.parametrize("count", COUNTS)
def test_equal_content_is_equal_and_any_flipped_bit_is_not(instruction_set, count):
    tensor = torch.randn(count)
    before = fingerprint(tensor)
    assert fingerprint(tensor.clone()) == before
    bits = tensor.view(torch.int32)
    for place in {0, count // 2, count - 1} if count else ():
        for bit in (0, 22, 31):
            bits[place] ^= -(2**31) if bit == 31 else 1 << bit
            assert fingerprint(tensor) != before, (place, bit)
            bits[place] ^= -(2**31) if bit == 31 else 1 << bit
    assert fingerprint(tensor) == before


@pytest.mark.parametrize(
    "change",
    [
        torch.neg,
        lambda w: w.flip(0),
        lambda w: w.roll(64),
        lambda w: w.roll(w.numel() // 4),
        lambda w: w[:-1],
        torch.zeros_like,
    ],
    ids=["negated", "reversed", "rolled by a line", "rolled by a quarter", "shorter", "zeroed"],
)
def test_changes_of_many_values_do_not_cancel(instruction_set, change):
    for size in (4096, CHUNK):
        for tensor in (torch.randn(size), torch.ones(size).cumsum(0)):
            assert fingerprint(change(tensor)) != fingerprint(tensor)


def test_two_values_that_change_alike_do_not_cancel(instruction_set):
    found = set()
    for i in range(64):
        for j in range(i):
            tensor = torch.ones(64)
            tensor[[i, j]] = -1.0
            found.add(fingerprint(tensor))
    assert len(found) == 64 * 63 // 2


def test_shape_and_type_count_and_layout_does_not():
    tensor = torch.randn(4, 6, 3, 3)
    assert fingerprint(tensor.contiguous(memory_format=torch.channels_last)) == fingerprint(tensor)
    assert fingerprint(tensor.view(24, 3, 3)) != fingerprint(tensor)
    assert fingerprint(tensor.view(torch.int32)) != fingerprint(tensor)


def test_every_instruction_set_and_number_of_threads_gives_the_same():
    tensor, found = torch.randn(5 * CHUNK + 3), set()
    threads = torch.get_num_threads()
    try:
        for name in library.instruction_sets():
            library.use_instruction_set(name)
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                found.add(fingerprint(tensor))
    finally:
        torch.set_num_threads(threads)
        if library.instruction_sets():
            library.use_instruction_set(library.instruction_sets()[0])
    assert len(found) <= 1


def test_without_the_library_it_is_sha_256(monkeypatch):
    monkeypatch.setattr(library, "unavailable", lambda: "not built")
    tensor = torch.randn(7)
    assert fingerprint(tensor).hashes == hashlib.sha256(tensor.numpy().tobytes()).digest()
