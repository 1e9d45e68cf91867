"""Where attacks get their gradient: the network is held in the state it is attacked in, as long as an attack lasts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from ..engine import Prepared, remembered
from ..engine.under_attack import under_attack
from ..nn import precision as in_precision
from ..ops import check
from .gradient import InputGradient
from .independence import are_independent, in_one_order
from .looks import Replays
from .objectives import AWAY, Objective
from .surrogates import surrogate_of
from .wrappers import EOT


@contextlib.contextmanager
def input_gradient(
    network: Callable[[torch.Tensor], torch.Tensor],
    *,
    bn: str = "frozen",
    precision: str = "fp32",
    engine: str | None = "auto",
    graph: str | None = "auto",
    surrogate: str | None = None,
    objective: Objective = AWAY,
) -> Iterator[InputGradient]:
    """Hold `network` in the state it is attacked in, and yield the function from iterate and labels to the gradient.

    Args:
        network: from an iterate to logits [B, classes].
        bn: "frozen", "batch" or "drift"; see under_attack.
        precision: "reference", "fp32" or "fast"; see nn.precision.
        engine: "auto" computes products in the fastest form with the same answers (see engine.prepare); None as the
            layers themselves, for comparison.
        graph: whether steps and looks may be recorded and replayed ("auto"), or None; see pgd.
        surrogate: what the gradient of a spike is taken for, as "shape:alpha" or the name of a rule; see surrogates.
            None leaves it to the network.
        objective: what is climbed; cross-entropy by default.

    The loss is summed over the batch, so that a sample's gradient does not depend on how many others came with it.

    Raises:
        ValueError: on leaving, if any logits or gradients were not finite; at the first call, if the labels do not fit
            the logits or the logits do not depend on the input.
    """
    if engine is not None:
        check.one_of("engine", engine, ("auto",))
    if graph is not None:
        check.one_of("graph", graph, ("auto",))
    module, passes = network.network if isinstance(network, Prepared) else network, 1
    if isinstance(module, EOT):
        passes, graph = module.samples, None  # a recording would draw the same numbers again
        network = module = module.network
    network = remembered(network) if engine else module
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        under_attack(module, bn),
        surrogate_of(module, surrogate) as rules,
        in_precision(precision),
    ):
        # "reference" keeps torch's order of sums, which is SpikingJelly's
        independent = bool(engine) and bn == "frozen" and precision != "reference" and are_independent(module)
        graph = None if rules else graph  # a rule may remember, which a recording would not
        order = in_one_order() if independent else contextlib.nullcontext()
        independent &= all(rule.is_independent for rule in rules)
        replays = Replays() if graph else None
        source = InputGradient(network, module, bn, independent, replays, objective, rules, passes, order)
        try:
            yield source
        finally:
            if replays is not None:
                replays.hold.release()
    source.check_finite()
