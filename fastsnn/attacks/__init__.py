"""Attacks: they see a callable from inputs to logits, never a model class.

What their arguments mean, wherever an attack's own description does not say otherwise:

    network     from x to logits [B, classes]: a module, or any callable
    x           encoded input [T, B, C, H, W] or images [B, C, H, W], float32 in [0, 1]
    y           labels [B], integers
    eps         budget, at least 0: a number, or one per sample [B]; or a list of such, for a list of results
    norm        of the budget: "linf", "l2" or "l1"
    targeted    whether y holds the classes that the network is to be led to, rather than away from
    bn          what batch norms do meanwhile: "frozen", "batch" or "drift"; see engine.under_attack
    precision   "reference", "fp32" or "fast"; see nn.precision
    engine      "auto" for the fastest form with the same answers, None for the layers themselves
    surrogate   what the attacker takes for the gradient of a spike: "shape:alpha" ("triangle:1"), or a rule ("assg";
                see surrogates.RULES); None for the network's own. The network gets its own back
    generator   of random numbers; None uses torch's global one. A list holds one for each sample, which makes what
                becomes of a sample independent of its batch

On a CPU, and for PGD on a GPU, passes through a network of this package are recorded and replayed where it pays, with
the same bits; see pgd's graph. On a CPU engine=None, or precision="reference", records nothing.

A wrong argument raises a ValueError or a TypeError that names it. The network is left as it was found, also then.
"""

from .auto_pgd import APGD, APGDT, apgd, apgdt
from .flips import G2S, g2s
from .projected import FGSM, MIM, PGD, fgsm, mim, pgd
from .random_search import Square, square
from .stable import SAPGD, sapgd
from .strongest import Ensemble, Strongest, ensemble, strongest
from .wrappers import BPDA, EOT

__all__ = ["APGD", "APGDT", "BPDA", "EOT", "FGSM", "G2S", "MIM", "PGD", "SAPGD", "Ensemble", "Square", "Strongest"]
__all__ += ["apgd", "apgdt", "ensemble", "fgsm", "g2s", "mim", "pgd", "sapgd", "square", "strongest"]
