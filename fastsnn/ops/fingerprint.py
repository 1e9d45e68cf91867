"""A tensor's content in a few bytes, to tell later whether it has changed, without keeping a copy.

On a CPU alone. Equal content gives an equal fingerprint; one changed value never does, several with a chance of 2^-64.
"""

from __future__ import annotations

import hashlib
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
    dense = tensor.detach().contiguous()
    count = dense.numel() * dense.element_size()
    if library.unavailable():  # no compiler: slower by the factor of SHA-256
        hashes = hashlib.sha256(dense.flatten().view(torch.uint8).numpy()).digest() if count else b""
    else:
        out = torch.empty(-(-count // CHUNK), dtype=torch.int64, device="cpu")  # not the default device of the caller
        arguments = library.FingerprintArguments(library.address(dense), library.address(out), count, CHUNK)
        library.run("fingerprint", arguments)
        hashes = out.numpy().tobytes()
    return Fingerprint(tuple(tensor.shape), tensor.dtype, hashes)
