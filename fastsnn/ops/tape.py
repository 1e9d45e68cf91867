"""What was computed on a CPU, to be computed again without Python in between: torch's operators and our kernels.

    tape = record(step)   # runs the step once
    tape.play()           # does what it did, from what now lies where it read

A step's own tensors get places in one block of memory, which they share as they did when they came and went; tensors
from before, and those that outlive the step, are read and written where they are. So a replay is a list of calls with
arguments that are ready. Of a step of PGD on SEW-ResNet18, Python and torch's autograd were a fifth of the time.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from . import library

_aten = torch.ops.aten
_ALLOCATES = {"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided"}
_FILLS_WITH_ZEROS = {"zeros", "new_zeros", "zeros_like"}
_COPIES = {"clone", "_to_copy"}
_RESHAPES = {"as_strided_", "detach_", "squeeze_", "swapaxes_", "t_", "transpose_", "unsqueeze_"}  # no numbers change
_REPLACES_MEMORY = {"resize_", "resize_as_", "set_"}
_expired = torch.UntypedStorage._expired  # what StorageWeakRef asks: of every tensor, before every call
_LINE = 64  # bytes: tensors begin with a line of the cache


class Tape:
    """A recorded step; see `record`.

    Attributes:
        refused: why the step cannot be played, or empty.
        bytes: of the memory that it keeps for tensors of its own.
    """

    def __init__(self, refused: str, calls: list[tuple[Callable, tuple]], size: int, kept: object):
        self.refused, self.bytes, self._calls, self._kept = refused, size, calls, kept

    def play(self) -> None:
        """Do the step again."""
        with torch._C.DisableTorchFunction(), torch.no_grad():
            for call, arguments in self._calls:
                call(*arguments)


def record(step: Callable[[], None]) -> Tape:
    """Run a step once and return its tape.

    A tape sees no value: a step that asks an operator for one, or that draws random numbers, has a tape that is refused
    (what `tolist`, `numpy` and `data_ptr` give away is not noticed). Tensors that kernels read and that were there
    before the step are the caller's to keep alive; those of torch's operators are kept by the tape.
    """
    recorder = _Recorder()
    # else what the recorder notes would lie between the step's tensors, and holes be left that nothing fits
    with library.memory_given_back(), library.heard_by(recorder.kernel), recorder:
        before, _this_thread.recorder = _this_thread.recorder, recorder
        try:
            step()
        finally:
            _this_thread.recorder = before
    return recorder.finish()


def call(function: Callable[[], None]) -> None:
    """Call a function; in a step that is recorded, it will be called in every replay, in its place in the step.

    It sees values, and may do otherwise every time. Its tensors are its own: what others of the step are to read or
    write of them must have been there before the step.
    """
    with aside():
        function()
    if _this_thread.recorder is not None:
        _this_thread.recorder.events.append(lambda arena: (function, ()))


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Leave what this thread does inside the block out of a tape: it is done once, and not when that is played.

    For tensors that are made when they are first asked for, and then kept.
    """
    before, _this_thread.is_aside = _this_thread.is_aside, True
    try:
        yield
    finally:
        _this_thread.is_aside = before


class _ThisThread(threading.local):
    is_aside = False
    recorder: _Recorder | None = None


_this_thread = _ThisThread()


class _Block:
    """A storage that the step allocated: where it was, and the events between which it was."""

    def __init__(self, storage: torch.UntypedStorage, born: int):
        self.alive, self.start, self.size = StorageWeakRef(storage), storage.data_ptr(), storage.nbytes()
        self.born, self.died, self.offset = born, -1, 0
        self.storage: torch.UntypedStorage | None = None  # of one that outlives the step


class _View(NamedTuple):
    """A tensor of the step, without what would keep it alive."""

    block: _Block
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    def tensor(self, arena: torch.UntypedStorage) -> torch.Tensor:
        storage, first = self.block.storage, 0
        if storage is None:
            storage, first = arena, self.block.offset // self.dtype.itemsize
        return torch.empty(0, dtype=self.dtype, device="cpu").set_(storage, first + self.offset, self.size, self.stride)


class _Recorder(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Let torch not wrap what is below against its compiler, for which it would import that first: a second."""
        return False

    def __init__(self):
        super().__init__()
        self.blocks: list[_Block] = []
        self.live: dict[int, _Block] = {}
        self.events: list[Callable[[torch.UntypedStorage], tuple[Callable, tuple] | None]] = []
        self.refused, self.inside = "", False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operator of torch, and note what does it again."""
        if _this_thread.is_aside:
            return func(*args, **(kwargs or {}))
        self._bury()
        inputs = _mapped(self._noted, torch.Tensor, (args, kwargs or {}))
        given = {one.untyped_storage()._cdata for one in _flat((args, kwargs)) if _is_tensor(one)}
        self.inside = True
        try:
            out = func(*args, **(kwargs or {}))
        finally:
            self.inside = False
        known, outputs = _known(func), []
        for tensor in _flat(out):
            if not _is_tensor(tensor):
                self._refuse_value(func, tensor)
                outputs.append(None)
            elif tensor.untyped_storage()._cdata not in given:
                self._bear(tensor.untyped_storage())
                outputs.append(self._noted(tensor))
            else:
                outputs.append(None)  # a view of an input, or the input itself
        if known.draws:
            self.refused = self.refused or f"{known.name} draws random numbers"
        if known.name in _REPLACES_MEMORY or (known.name in _RESHAPES and _is_tensor(inputs[0][0])):
            self.refused = self.refused or f"{known.name} changes where a tensor lies"
        new = any(view is not None for view in outputs)
        if known.computes_nothing or not (new or known.is_mutable):
            self.events.append(_nothing)
        else:
            self.events.append(functools.partial(_operator, func, inputs, outputs if new else []))
        return out

    def kernel(self, kernel: str, function: Callable, arguments) -> None:
        """Note one of our kernels, with the pointers to blocks among its arguments."""
        if self.inside or _this_thread.is_aside:
            return  # an operator's, which is noted as a whole
        self._bury()
        found = [(where, self._block_at(address), address) for where, address in library.pointers(arguments).items()]
        pointers = [(where, block, address - block.start) for where, block, address in found if block is not None]
        self.events.append(functools.partial(_kernel, kernel, function, library.copied(arguments), pointers))

    def finish(self) -> Tape:
        """Give every block its place, and return the calls."""
        self._bury()
        for block in self.live.values():
            block.died = len(self.events)
            block.storage = torch.UntypedStorage._new_with_weak_ptr(block.alive.cdata)
        size = 0 if self.refused else _place([block for block in self.blocks if block.storage is None])
        try:
            arena = torch.empty(size, dtype=torch.uint8, device="cpu").untyped_storage()
        except RuntimeError as error:  # no memory: whoever recorded goes on without
            self.refused, size, arena = str(error), 0, None
        calls = [] if self.refused else [call for event in self.events if (call := event(arena)) is not None]
        return Tape(self.refused, calls, size, (arena, [block.storage for block in self.live.values()]))

    def _noted(self, tensor: torch.Tensor) -> _View | torch.Tensor:
        block = self.live.get(tensor.untyped_storage()._cdata)
        if block is None:
            return tensor if tensor.grad_fn is None else tensor.detach()  # itself: torch counts its changes
        return _View(block, tensor.dtype, tensor.size(), tensor.stride(), tensor.storage_offset())

    def _bear(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.live:
            block = self.live[storage._cdata] = _Block(storage, len(self.events))
            self.blocks.append(block)

    def _bury(self) -> None:
        for key in [key for key, block in self.live.items() if _expired(block.alive.cdata)]:
            self.live.pop(key).died = len(self.events) - 1

    def _block_at(self, address: int) -> _Block | None:
        return next((one for one in self.live.values() if one.start <= address < one.start + one.size), None)

    def _refuse_value(self, func, value) -> None:
        if value is not None:
            self.refused = self.refused or f"{func._schema.name} asks for a value"


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)


def _nothing(arena: torch.UntypedStorage) -> None:
    """Stand for an operator that only gives a tensor its shape or its memory."""


def _kernel(kernel, function, arguments, pointers: Iterable, arena: torch.UntypedStorage) -> tuple[Callable, tuple]:
    """Return the call of a kernel, with its blocks in their places."""
    for where, block, offset in pointers:
        start = arena.data_ptr() + block.offset if block.storage is None else block.start
        library.point(arguments, where, start + offset)
    return library.call, (kernel, function, arguments)


def _operator(func, inputs, outputs: list[_View | None], arena: torch.UntypedStorage) -> tuple[Callable, tuple]:
    """Return the call that writes an operator's new tensors into their places."""
    args, kwargs = _mapped(lambda view: view.tensor(arena), _View, inputs)
    places = [None if view is None else view.tensor(arena) for view in outputs]
    known, name = _known(func), _known(func).name
    if not places:
        return _call(func, args, kwargs)
    if name in _FILLS_WITH_ZEROS:
        return _aten.zero_.default, (places[0],)
    if name in _COPIES:
        return _aten.copy_.default, (places[0], args[0])
    variant = None if known.is_mutable or None in places else _out_variant(func)
    if variant is not None:
        names = [argument.name for argument in variant._schema.arguments if argument.is_out]
        return _call(variant, args, kwargs | dict(zip(names, places, strict=True)))
    return _copied, (func, args, kwargs, places)


class _Known(NamedTuple):
    """What is known of an operator."""

    name: str
    is_mutable: bool
    draws: bool
    computes_nothing: bool


@functools.cache
def _known(func) -> _Known:
    name = func._schema.name.partition("::")[2]
    draws = torch.Tag.nondeterministic_seeded in func.tags
    return _Known(name, func._schema.is_mutable, draws, name in _ALLOCATES | _RESHAPES)


def _mapped(function: Callable, kind: type, value: object) -> object:
    """Return what an operator takes with function(one) for each of a kind; torch's own trees take ten times as long."""
    if isinstance(value, kind):
        return function(value)
    if type(value) in (tuple, list):
        return type(value)(_mapped(function, kind, one) for one in value)
    return {name: _mapped(function, kind, one) for name, one in value.items()} if type(value) is dict else value


def _flat(value: object) -> Iterator[object]:
    """Yield the parts of what an operator takes or returns."""
    if type(value) in (tuple, list, dict):
        for one in value.values() if type(value) is dict else value:
            yield from _flat(one)
    else:
        yield value


def _call(func, args: tuple, kwargs: dict) -> tuple[Callable, tuple]:
    return (functools.partial(func, **kwargs) if kwargs else func), tuple(args)


def _copied(func, args, kwargs, places) -> None:
    for place, tensor in zip(places, _flat(func(*args, **kwargs)), strict=True):
        if place is not None:
            place.copy_(tensor)


@functools.cache
def _out_variant(func):
    """Return the overload that takes the same arguments and the tensors to write into, or None."""
    wanted = [(argument.name, str(argument.type)) for argument in func._schema.arguments]
    for name in func.overloadpacket.overloads():
        overload = getattr(func.overloadpacket, name)
        arguments = overload._schema.arguments
        rest = [(argument.name, str(argument.type)) for argument in arguments if not argument.is_out]
        if rest == wanted and len(arguments) - len(rest) == len(func._schema.returns):
            return overload
    return None


def _place(blocks: list[_Block]) -> int:
    """Give blocks, in the order of their births, offsets at which those alive together do not meet; return the end.

    Each takes the smallest hole that holds it; what has just been left is then likely to be in the cache.
    """
    end, holes, leaving = 0, {}, {}  # of holes, the size by offset
    for block in blocks:
        leaving.setdefault(block.died, []).append(block)
    gone = sorted(leaving)
    for block in blocks:
        while gone and gone[0] < block.born:
            for left in leaving[gone.pop(0)]:
                _leave(holes, left.offset, _rounded(left.size))
        size = _rounded(block.size)
        fit = min((at for at, hole in holes.items() if hole >= size), key=holes.__getitem__, default=None)
        if fit is None:
            last = max(holes, default=None)
            if last is not None and last + holes[last] == end:
                fit = last  # the hole at the end grows
                end = fit + size
                del holes[last]
            else:
                fit, end = end, end + size
        else:
            rest = holes.pop(fit) - size
            if rest:
                holes[fit + size] = rest
        block.offset = fit
    return end


def _leave(holes: dict[int, int], offset: int, size: int) -> None:
    """Add a hole, joined with those beside it."""
    if not size:
        return
    before = next((at for at, hole in holes.items() if at + hole == offset), None)
    if before is not None:
        offset, size = before, size + holes.pop(before)
    size += holes.pop(offset + size, 0)
    holes[offset] = size


def _rounded(size: int) -> int:
    return -(-size // _LINE) * _LINE
