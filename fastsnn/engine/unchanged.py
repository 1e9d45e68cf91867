"""Whether weights are still those that forms were built from, also where they changed behind torch's back.

On a CPU a few bytes are kept of each tensor; on a GPU a copy, as comparing it is a few launches for the whole network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..ops.fingerprint import Fingerprint, fingerprint, fingerprints

Known = Fingerprint | torch.Tensor


def known(tensor: torch.Tensor) -> Known:
    """Return what tells later whether a tensor has changed."""
    return fingerprint(tensor) if tensor.is_cpu else tensor.detach().clone()


def are_unchanged(lists: Sequence[tuple[Sequence[torch.Tensor | None], Sequence[Known]]]) -> list[bool]:
    """Tell for each list of tensors whether all are what was known of them; None (a tensor that is gone) is not.

    Waits for a GPU once for all lists.
    """
    comparable = [len(now) == len(then) and all(map(_may_be, now, then)) for now, then in lists]
    pairs = [list(zip(*pair, strict=True)) if fine else [] for pair, fine in zip(lists, comparable, strict=True)]
    together = [pair for several in pairs for pair in several]
    equal = iter(_are_equal([pair for pair in together if isinstance(pair[1], torch.Tensor)]))
    found = iter(fingerprints([now for now, then in together if isinstance(then, Fingerprint)]))
    same = iter([next(equal) if isinstance(then, torch.Tensor) else next(found) == then for _, then in together])
    return [fine and all([next(same) for _ in several]) for several, fine in zip(pairs, comparable, strict=True)]


def _may_be(now: torch.Tensor | None, then: Known) -> bool:
    if now is None or (now.shape, now.dtype) != (then.shape, then.dtype):
        return False
    return now.device == then.device if isinstance(then, torch.Tensor) else now.is_cpu


def _are_equal(copies: list[tuple[torch.Tensor, torch.Tensor]]) -> list[bool]:
    """Compare in a few launches and one wait, where one by one would cost more than a step of PGD."""
    if not copies:
        return []
    now, then = map(list, zip(*copies, strict=True))
    furthest = torch._foreach_norm(torch._foreach_sub(now, then), ord=float("inf"))
    return (torch.stack(furthest) == 0).tolist()  # infinities and NaN differ from themselves: made anew
