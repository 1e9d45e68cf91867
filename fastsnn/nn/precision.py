"""How exactly a network computes: a choice that changes results, so it is made by name and holds for a block of code.

with fastsnn.nn.precision("fast"):
    logits = net(x_seq)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch

from ..ops import check, library

PRECISIONS = ("reference", "fp32", "fast")
IN_TRAINING = ("fp32", "bf16")  # bf16 rounds weights forwards on every device, so it moves spikes
_current: ContextVar[str] = ContextVar("fastsnn_precision", default="fp32")


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Compute in `name` precision inside the block.

    Outside of any block a network computes as in "fp32", except that on a GPU torch's own settings decide about TF32.

    Args:
        name: "reference": layer by layer in SpikingJelly's order of operations, bit for bit on the same device;
            "fp32": float32 arithmetic, layers fused, sums may be reordered (on a GPU without TF32);
            "fast": on a GPU bfloat16 products of spikes and weights, TF32 elsewhere, float32 membranes and stem; on a
            CPU, where the processor multiplies such, the engine's products round to bfloat16 in the gradient, and
            forwards (with running statistics) weights to 16 bits in each channel's unit: few spikes change, but one
            that does may turn an image's whole gradient, so that accuracies agree rather than adversarial examples;
            "bf16", for training: what "fast" is on a GPU, on every device: weights, currents and their gradients are
            rounded to bfloat16, membranes, norms, the stem, the logits and the weights that learn stay float32.

    Raises:
        ValueError: an unknown name.
    """
    token = _current.set(check.one_of("precision", name, (*PRECISIONS, "bf16")))
    try:
        with _gpu_products({"fp32": "ieee", "fast": "tf32", "bf16": "tf32"}.get(name)):
            yield
    finally:
        _current.reset(token)


def current() -> str:
    """Return the precision in force: that of the innermost block, or "fp32"."""
    return _current.get()


def product_dtype(spikes: bool, device: torch.device) -> torch.dtype:
    """Return the type of a layer's products and of what passes between layers.

    Args:
        spikes: whether the layer's input holds spikes or small sums of them: those are exact in bfloat16, so that
            only the weights are rounded.
        device: where it is computed.
    """
    rounds = current() == "bf16" or (current() == "fast" and device.type != "cpu")
    return torch.bfloat16 if spikes and rounds else torch.float32


def forward_dtype(spikes: bool, device: torch.device) -> torch.dtype:
    """Return the type of the engine's forward products; arguments as above. What passes between layers has the above.

    In int16 spikes are exact, sums are, and weights are rounded to 16 bits: 30 to 75 times as exact as in bfloat16.
    """
    fast = current() == "fast" and device.type == "cpu" and library.has_bf16()
    return torch.int16 if spikes and fast else product_dtype(spikes, device)


def gradient_dtype(spikes: bool, device: torch.device) -> torch.dtype:
    """Return the type that the engine rounds the products of a layer's input gradient to; arguments as above.

    On a CPU what comes in forwards plays no part: the gradient meets the weights alone.
    """
    if device.type != "cpu" or current() == "bf16":
        return product_dtype(spikes, device)
    return torch.bfloat16 if current() == "fast" and library.has_bf16() else torch.float32


@contextlib.contextmanager
def _gpu_products(mode: str | None) -> Iterator[None]:
    """Pin what a GPU makes of float32 products (torch's own default differs between convolution and matmul)."""
    if mode is None or not torch.cuda.is_available():
        yield
        return
    settings = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = mode
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value
