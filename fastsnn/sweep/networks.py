"""A sweep's trained networks: from the cache of weights where they lie there, otherwise trained now."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .. import models, training
from ..data import Dataset
from ..ops import library
from . import inputs, weights
from .plan import DEFAULTS, EVENTS_CODING, Network, Settings
from .progress import Silent

RECIPE = 2  # of training: raise it when a change of code changes trained weights, so that no cache serves old ones


def trained(
    settings: Settings, network: Network, train_set: Dataset, device: torch.device, progress: Silent, *, retrain: bool
) -> tuple[nn.Module, dict]:
    """Return a network in eval mode, and where its weights come from: file, and whether that was the cache.

    Args:
        settings: how to build and train it.
        network: which one.
        train_set: what it learns.
        device: where it lives and learns.
        progress: hears of every batch.
        retrain: train even if the cache has the weights. A corrupt file in it is said, and trained anew, either way.
    """
    net = untrained(settings, network, train_set.num_classes).to(device)
    if settings.weights is not None:
        return _taken(settings, net, progress)
    description = describe(settings, network, train_set, device)
    file = weights.path(description)
    origin = {"file": str(file), "cached": False, "description": description}
    state = None if retrain else _cached(file, progress)
    if state is not None:
        net.load_state_dict(state)
        progress.say(f"{network}: weights from {file}")
        return net.eval(), origin | {"cached": True}
    progress.start(f"{network}: train", settings.epochs * len(train_set))

    def on_batch(batch: training.Batch) -> None:
        progress.advance(batch.images, f"loss {batch.loss.item():.3f}")

    trainer = trainer_of(settings, network, net, train_set, device)
    for _ in range(settings.epochs):
        loss = trainer.epoch(on_batch)
    weights.save(file, net.state_dict(), description)
    progress.finish(f"loss {loss:.3f}")
    return net, origin


def trainer_of(
    settings: Settings,
    network: Network,
    net: nn.Module,
    train_set: Dataset,
    device: torch.device,
    ranks: training.Ranks | None = None,
) -> training.Trainer:
    """Return what trains `net` as the settings say, together with other processes if there are `ranks`."""
    names = ("epochs", "lr", "schedule", "weight_decay", "optimizer", "flips")
    how = {name: getattr(settings, name) for name in names}
    how |= {"precision": settings.train_precision}
    how |= {"batch_size": settings.train_batch_size, "seed": network.seed}
    encode = inputs.encoder(settings, network, inputs.generator(network.seed, device))
    defence = training.defence_of("defence", network.defence)
    how |= {"encode": encode, "defence": defence, "ranks": ranks}
    return training.Trainer(net, train_set.images, train_set.labels, **how)


def check_weights(settings: Settings) -> None:
    """Refuse a file of weights that is not of the one network that the settings ask for.

    Raises:
        ValueError: it is of another network, or was trained otherwise; the message names what differs.
        FileNotFoundError, CorruptWeightsError: it cannot be used.
    """
    if settings.weights is None:
        return
    for name, value in weights.settings_of(Path(settings.weights)).items():
        if getattr(settings, name) != value:
            shown = getattr(settings, name)
            raise ValueError(f"{name} is {shown!r}, but {settings.weights} was trained with {value!r}.")


def _taken(settings: Settings, net: nn.Module, progress: Silent) -> tuple[nn.Module, dict]:
    """Return the network with the weights of the file that the settings name."""
    file = Path(settings.weights)
    net.load_state_dict(weights.load(file))
    progress.say(f"weights from {file}")
    return net.eval(), {"file": str(file), "cached": True, "description": weights.description(file)}


def untrained(settings: Settings, network: Network, classes: int) -> nn.Module:
    """Return a network as it is before training."""
    with torch.random.fork_rng():
        torch.manual_seed(network.seed)
        shape = {"num_classes": classes, "width": settings.width, "in_channels": inputs.channels(network)}
        if network.model in models.SIZED:
            shape["image_size"] = inputs.side(settings, network)
        pool = None if network.pool == models.NO_POOL else network.pool
        net = models.BUILDERS[network.model](pool=pool, **stem(network), **shape)
        return training.neurons_for(net, network.defence)


def _cached(file, progress: Silent) -> dict[str, torch.Tensor] | None:
    try:
        return weights.load(file)
    except weights.CorruptWeightsError as error:
        progress.say(f"{error} Training again.")
        return None


def _how_to_train(settings: Settings, network: Network) -> dict:
    """Return what a description says of training: of what came later only what is not as it once was for all."""
    names = ("epochs", "lr", "schedule", "weight_decay", "T", "K")
    how = {name: getattr(settings, name) for name in names}
    later = ("optimizer", "flips", "train_precision")
    how |= {name: getattr(settings, name) for name in later if getattr(settings, name) != DEFAULTS[name]}
    if network.defence != training.NO_DEFENCE:
        how |= {"defence": network.defence, "defence_settings": training.described(network.defence)}
    return {"batch_size": settings.train_batch_size, "seed": network.seed, **how}


def describe(settings: Settings, network: Network, train_set: Dataset, device: torch.device) -> dict:
    """Return everything that determines trained weights, down to the order in which a processor adds."""
    if settings.weights is not None:
        return weights.description(Path(settings.weights))
    return {
        "recipe": RECIPE,
        "model": network.model,
        "pool": network.pool,
        "width": settings.width,
        **stem(network),
        "data": train_set.name,
        "data_sha256": train_set.sha256(),
        "training": _how_to_train(settings, network) | coding(network) | _frames(settings, network),
        **arithmetic(device),
        "threads": None if device.type == "cuda" else torch.get_num_threads(),
    }


def stem(network: Network) -> dict:
    """Return what a description says of a network's stem: nothing of the published one, once the only one."""
    return {} if network.stem == models.STEM else {"stem": network.stem}


def coding(network: Network) -> dict:
    """Return what a description says of a network's coding: nothing of the phase code, which was once the only one."""
    return {} if network.coding == "phase" else {"coding": network.coding}


def _frames(settings: Settings, network: Network) -> dict:
    return {"frame_size": settings.frame_size} if network.coding == EVENTS_CODING else {}


def arithmetic(device: torch.device) -> dict:
    """Return what decides in which order numbers are added: torch, the device, the kernels."""
    on_gpu = device.type == "cuda"
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if on_gpu else torch.backends.cpu.get_cpu_capability(),
        "kernels": None if on_gpu else library.instruction_sets()[:1],
    }
