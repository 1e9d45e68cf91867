"""The outside witness: SpikingJelly's ResNets as the paper builds them, and sparsity read off with plain hooks.

Whichever of 2.0 and 0.0.0.0.14 is imported; .ci/run puts the old one on PYTHONPATH for the tests that compare networks.
"""

from __future__ import annotations

from importlib.metadata import version

import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from spikingjelly.activation_based.functional import reset_net, set_step_mode
from spikingjelly.activation_based.model import sew_resnet, spiking_resnet

import fastsnn

OLD = version("spikingjelly") == "0.0.0.0.14"


def pair(depth: int, pool: str = "max", cnf: str = "ADD", seed: int = 0):
    """Return (ours, theirs), SEW-ResNets with the same random weights and statistics that are not the initial ones."""
    how = {"cnf": cnf, "detach_reset": True}
    theirs = _theirs(getattr(sew_resnet, f"sew_resnet{depth}"), pool, seed, **how)
    ours = getattr(fastsnn.models, f"sew_resnet{depth}")(pool, cnf=cnf)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def spiking_pair(depth: int, pool: str = "max", seed: int = 0):
    """Return (ours, theirs), Spiking-ResNets likewise."""
    theirs = _theirs(getattr(spiking_resnet, f"spiking_resnet{depth}"), pool, seed)
    ours = getattr(fastsnn.models, f"spiking_resnet{depth}")(pool)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def _theirs(builder, pool: str, seed: int, **how):
    torch.manual_seed(seed)
    theirs = builder(spiking_neuron=neuron.IFNode, surrogate_function=surrogate.ATan(), num_classes=10, **how)
    if pool == "avg":
        theirs.maxpool = layer.AvgPool2d(kernel_size=3, stride=2, padding=1)
    set_step_mode(theirs, "m")
    unsettle(theirs)
    return theirs


def unsettle(net: torch.nn.Module) -> None:
    """Give batch norms statistics that are not the initial ones."""
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.0)


def differentiable(net: torch.nn.Module) -> torch.nn.Module:
    """Return their network with neurons that have a gradient: in 0.0.0.0.14 only those in train mode have."""
    for module in net.modules():
        if OLD and isinstance(module, neuron.BaseNode):
            module.train()
    return net


def batch(T: int = 4, B: int = 2, size: int = 32, seed: int = 1):
    """Return phase-coded noise [T, B, 3, size, size] and labels [B]."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (B, 3, size, size), dtype=torch.uint8, generator=generator)
    return fastsnn.functional.phase_encode(images, T), torch.randint(0, 10, (B,), generator=generator)


def leaf_gradient_zeros(net: torch.nn.Module, loss) -> dict[str, tuple[int, int]]:
    """Return, for each leaf called in `loss()`, the exact zeros in the gradients at its output and input."""
    zeros: dict[str, tuple[int, int]] = {}

    def hook(name):
        def count(module, grad_input, grad_output):
            given = grad_input[0] if grad_input else None
            zeros[name] = (int((grad_output[0] == 0).sum()), -1 if given is None else int((given == 0).sum()))

        return count

    def is_leaf(module):  # their neurons hold a surrogate module, which the fused path never calls
        return isinstance(module, neuron.BaseNode) or not list(module.children())

    leaves = [(name, m) for name, m in net.named_modules() if is_leaf(m) and "surrogate_function" not in name]
    handles = [module.register_full_backward_hook(hook(name)) for name, module in leaves]
    try:
        loss().backward()
    finally:
        for handle in handles:
            handle.remove()
    return zeros


def reset(net: torch.nn.Module) -> None:
    """Forget the voltages of SpikingJelly's neurons."""
    reset_net(net)
