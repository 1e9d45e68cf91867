"""The cache of trained weights: one safetensors file each, named by a hash of everything that determined them.

That description stands in the file's header as JSON, with a checksum of the tensors. The files lie in the cache's
folder `weights` (see fastsnn.files), and can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from .. import files


class CorruptWeightsError(ValueError):
    """A cached file that is not what was once written; the message is a sentence with its path."""


def directory() -> Path:
    """Return the folder of the cache, made if need be; OSError where it cannot be."""
    return files.cache("weights")


def path(description: dict) -> Path:
    """Return where weights so described are kept: a readable name, and a hash of all the rest."""
    key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
    folder = files.cache_path("weights")  # to ask for a path makes nothing
    return folder / f"{description['model']}-{description['pool']}-{description['data']}-{key}.safetensors"


def save(file: Path, state: dict[str, torch.Tensor], description: dict) -> None:
    """Write a network's state_dict with its description, whole or not at all."""
    import safetensors.torch

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    header = {"description": json.dumps(description, sort_keys=True), "sha256": checksum(state)}
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write(file, safetensors.torch.save(state, header))


def load(file: Path) -> dict[str, torch.Tensor] | None:
    """Return the state_dict in `file`, or None if there is no such file.

    Raises:
        CorruptWeightsError: it cannot be read, or its checksum is wrong.
    """
    import safetensors.torch

    if not file.exists():
        return None
    try:
        with safetensors.safe_open(file, "pt") as opened:
            header = opened.metadata() or {}
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except (safetensors.SafetensorError, OSError) as error:
        raise CorruptWeightsError(f"The cached weights {file} cannot be read ({error}).") from error
    if header.get("sha256") != checksum(state):
        raise CorruptWeightsError(f"The cached weights {file} are not those once written: their checksum is wrong.")
    return state


def checksum(state: dict[str, torch.Tensor]) -> str:
    """Return a hash of a state_dict's names, types, shapes and numbers."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {state[name].dtype} {list(state[name].shape)}".encode())
        digest.update(state[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
