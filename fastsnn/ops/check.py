"""How bad arguments are refused: a sentence that names the argument, what came, and what was expected."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable

import torch

from . import library

STORAGE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def one_of(name: str, value: object, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of `allowed`; otherwise raise a ValueError that lists the near names first."""
    allowed = tuple(allowed)
    if value in allowed:
        return value  # type: ignore[return-value]
    by_lower = {name.lower(): name for name in allowed}
    near = [by_lower[name] for name in difflib.get_close_matches(str(value).lower(), by_lower, n=2, cutoff=0.5)]
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, allowed))}.{hint}")


def options(owner: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise a TypeError where `owner` was given an option that it does not have."""
    allowed = tuple(allowed)
    for name in given:
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"its neurons take {', '.join(map(repr, allowed))}."
            raise TypeError(f"{owner} has no option {name!r}; {hint}")


def number(name: str, value: object, *, above: float | None = None, at_least: float | None = None) -> float:
    """Return `value` as a finite float, above or at least a bound where one is given."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r} of type {type(value).__name__}, expected a number.")
    bound = f" above {above}" if above is not None else f" of at least {at_least}" if at_least is not None else ""
    wrong = not math.isfinite(value) or (above is not None and value <= above)
    if wrong or (at_least is not None and value < at_least):
        raise ValueError(f"{name} is {value!r}, expected a finite number{bound}.")
    return float(value)


def integer(name: str, value: object, *, at_least: int, at_most: int | None = None) -> int:
    """Return `value` as an int within its bounds."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r} of type {type(value).__name__}, expected an integer.")
    if value < at_least or (at_most is not None and value > at_most):
        bounds = f"from {at_least} to {at_most}" if at_most is not None else f"of at least {at_least}"
        raise ValueError(f"{name} is {value}, expected an integer {bounds}.")
    return int(value)


def tensor(name: str, value: object, dtypes: tuple[torch.dtype, ...] = STORAGE_DTYPES) -> torch.Tensor:
    """Return `value` if it is a tensor of one of `dtypes`."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is of type {type(value).__name__}, expected a torch.Tensor.")
    if value.dtype not in dtypes:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name} has dtype {str(value.dtype).removeprefix('torch.')}, expected one of {names}.")
    return value


def unit_interval(name: str, value: torch.Tensor) -> torch.Tensor:
    """Return `value` if its numbers are in [0, 1]; while a step is recorded, they cannot be looked at."""
    capturing = library.is_heard() or (value.is_cuda and torch.cuda.is_current_stream_capturing())
    if value.numel() and not capturing and not bool(((value >= 0) & (value <= 1)).all()):
        low, high = value.min().item(), value.max().item()
        raise ValueError(f"{name} has values from {low:g} to {high:g}, expected floats in [0, 1] or uint8 pixels.")
    return value


def companion(name: str, value: torch.Tensor, shape: tuple[int, ...], of: str, device: torch.device) -> torch.Tensor:
    """Return `value` if it has the shape and the device that `of` asks for."""
    tensor(name, value)
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {list(value.shape)}, expected {list(shape)} to go with {of}.")
    if value.device != device:
        raise ValueError(f"{name} is on {value.device} but {of} is on {device}; move one of them with .to(device).")
    return value


def encoded(x_seq: torch.Tensor, channels: int, weight: torch.Tensor) -> torch.Tensor:
    """Return `x_seq` if it is encoded input [T, B, channels, H, W] of the type and on the device of `weight`."""
    if x_seq.dim() != 5 or x_seq.shape[2] != channels:
        raise ValueError(f"x_seq has shape {list(x_seq.shape)}, expected encoded input [T, B, {channels}, H, W].")
    if x_seq.dtype != weight.dtype or x_seq.device != weight.device:
        raise TypeError(
            f"x_seq is {x_seq.dtype} on {x_seq.device}, expected the network's {weight.dtype} on {weight.device}."
        )
    return x_seq
