"""The state a network is attacked in, and its return to what it was before, also after an exception."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from ..ops import check

BN_MODES = ("frozen", "batch", "drift")
_Norm = nn.modules.batchnorm._BatchNorm


@contextlib.contextmanager
def under_attack(network: Callable, bn: str) -> Iterator[None]:
    """Freeze the parameters, put the norms in the mode `bn`, and undo both on leaving.

    Args:
        network: a module, or any callable (whose parameters and norms are then its own affair).
        bn: "frozen": running statistics, the network in eval mode; "batch": the norms use the batch's statistics, the
            running ones stay as they are; "drift": the paper's train mode, every forward pass moves the running ones.

    Raises:
        ValueError: an unknown mode, or one that a bare callable cannot be put in.
    """
    check.one_of("bn", bn, BN_MODES)
    if not isinstance(network, nn.Module):
        if bn != "frozen":
            raise ValueError(f"bn is {bn!r}, but network is a bare callable; pass the torch.nn.Module itself.")
        yield
        return
    modules = list(network.modules())  # a walk costs as much as all that is done here with them
    training = [(module, module.training) for module in modules]
    parameters = [parameter for module in modules for parameter in module._parameters.values()]
    frozen = [parameter for parameter in parameters if parameter is not None and parameter.requires_grad]
    norms = [module for module in modules if isinstance(module, _Norm)]
    statistics = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()] if bn != "frozen" else []
    drifted = False
    try:
        if any(mode != (bn == "drift") for _, mode in training):
            network.train(bn == "drift")
        if bn == "batch":
            for norm in norms:
                norm.training = True
        for parameter in frozen:
            parameter.requires_grad_(False)
        yield
        drifted = bn == "drift"  # asked for; an attack that failed leaves the statistics alone
    finally:
        for module, mode in training:
            if module.training != mode:
                module.training = mode
        for parameter in frozen:
            parameter.requires_grad_(True)
        with torch.no_grad():
            for buffer, value in [] if drifted else statistics:
                buffer.copy_(value)
