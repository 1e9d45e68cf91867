"""A tensor's content in a few bytes, to tell later whether it has changed, without keeping a copy.

On a CPU alone. Equal content gives an equal fingerprint; one changed value never does, several with a chance of 2^-64.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch

from . import library

CHUNK = 2**18  # bytes: work enough for a thread


class Fingerprint(NamedTuple):
    """What a tensor is, and hashes of its bytes."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    hashes: bytes


def fingerprint(tensor: torch.Tensor) -> Fingerprint:
    """Return the fingerprint of a tensor on a CPU, in any layout; the same for any number of threads."""
    return fingerprints([tensor])[0]


def fingerprints(tensors: Sequence[torch.Tensor]) -> list[Fingerprint]:
    """Return the fingerprint of each tensor; in one go, as small ones cost more in calls than in bytes."""
    dense = [tensor.detach().contiguous() for tensor in tensors]
    if library.unavailable():  # no compiler: slower by the factor of SHA-256
        hashes = map(_sha_256, dense)
    else:
        bytes_of = [one.numel() * one.element_size() for one in dense]
        chunks = list(itertools.accumulate((-(-count // CHUNK) for count in bytes_of), initial=0))
        rows = [*zip(map(library.address, dense), bytes_of, chunks, strict=False), (0, 0, chunks[-1])]
        # not on the default device of the caller
        table, out = torch.tensor(rows, device="cpu"), torch.empty(chunks[-1], dtype=torch.int64, device="cpu")
        arguments = library.FingerprintArguments(*map(library.address, (table, out)), len(dense), CHUNK)
        library.run("fingerprint", arguments)
        found = out.numpy().tobytes()
        hashes = (found[8 * first : 8 * last] for first, last in itertools.pairwise(chunks))
    return [Fingerprint(tuple(one.shape), one.dtype, own) for one, own in zip(dense, hashes, strict=True)]


def _sha_256(dense: torch.Tensor) -> bytes:
    return hashlib.sha256(dense.flatten().view(torch.uint8).numpy()).digest() if dense.numel() else b""
