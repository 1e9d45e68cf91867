"""Attacks: they see a callable from inputs to logits, never a model class."""

from .auto_pgd import APGD, APGDT, apgd, apgdt
from .flips import G2S, g2s
from .projected import FGSM, MIM, PGD, fgsm, mim, pgd
from .random_search import Square, square
from .stable import SAPGD, sapgd
from .strongest import Ensemble, Strongest, ensemble, strongest
from .wrappers import BPDA, EOT

__all__ = ["APGD", "APGDT", "BPDA", "EOT", "FGSM", "G2S", "MIM", "PGD", "SAPGD", "Ensemble", "Square", "Strongest"]
__all__ += ["apgd", "apgdt", "ensemble", "fgsm", "g2s", "mim", "pgd", "sapgd", "square", "strongest"]
