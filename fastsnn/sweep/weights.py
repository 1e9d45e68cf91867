"""Trained weights in safetensors files, whose header holds as JSON everything that determined them, and a checksum.

Those of sweeps are cached, each named by a hash of that description. They lie in the cache's
folder `weights` (see fastsnn.files), and can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from .. import files
from ..models import NO_POOL
from .plan import DEFAULTS, EVENTS_CODING


class CorruptWeightsError(ValueError):
    """A file that is not what was once written; the message is a sentence with its path."""


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
        raise CorruptWeightsError(f"The weights {file} cannot be read ({error}).") from error
    if header.get("sha256") != checksum(state):
        raise CorruptWeightsError(f"The weights {file} are not those once written: their checksum is wrong.")
    return state


def description(file: Path) -> dict:
    """Return what a file says determined its weights, and the checksum of them.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptWeightsError: it cannot be read, or was written by something else.
    """
    import safetensors

    if file.is_dir():
        raise CorruptWeightsError(f"{file} is a folder; name a file of weights in it, as latest.safetensors.")
    try:
        with safetensors.safe_open(file, "pt") as opened:
            header = opened.metadata() or {}
        return json.loads(header["description"]) | {"sha256": header["sha256"]}
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} does not exist") from None
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise CorruptWeightsError(f"{file} is no file of trained weights that fastsnn wrote ({error!r}).") from error


def settings_of(file: Path) -> dict[str, object]:
    """Return the settings, by their names in plan.Settings, under which a file's weights were trained.

    Of what came later a description says only what is not as it once was for all: the rest is as it was then.

    Raises:
        FileNotFoundError, CorruptWeightsError: as in description.
    """
    found = description(file)
    if "model" not in found:
        raise CorruptWeightsError(f"{file} is a checkpoint to go on from; name latest.safetensors or best.safetensors.")
    how = found["training"]
    settings = {name: (found[of],) for name, of in (("data", "data"), ("models", "model"), ("pools", "pool"))}
    settings["stems"] = (found["stem"],) if "stem" in found else DEFAULTS["stems"]
    if found["pool"] == NO_POOL:  # whatever the poolings are
        del settings["pools"]
    settings |= {"width": found["width"], "seeds": (how["seed"],), "train_batch_size": how["batch_size"]}
    settings |= {name: how[name] for name in ("epochs", "lr", "schedule", "weight_decay", "T", "K")}
    settings |= {name: how.get(name, DEFAULTS[name]) for name in ("optimizer", "flips", "train_precision")}
    settings["defences"] = (how["defence"],) if "defence" in how else DEFAULTS["defences"]
    if how.get("coding") != EVENTS_CODING:
        settings["codings"] = (how["coding"],) if "coding" in how else DEFAULTS["codings"]
    settings |= {"frame_size": how["frame_size"]} if "frame_size" in how else {}
    return settings | {"weights": str(file)}


def checksum(state: dict[str, torch.Tensor]) -> str:
    """Return a hash of a state_dict's names, types, shapes and numbers."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {state[name].dtype} {list(state[name].shape)}".encode())
        digest.update(state[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
