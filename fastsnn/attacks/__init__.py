"""Attacks: they see a callable from inputs to logits, never a model class."""

from .auto_pgd import APGD, APGDT, apgd, apgdt
from .projected import FGSM, MIM, PGD, fgsm, mim, pgd
from .random_search import Square, square
from .stable import SAPGD, sapgd
from .wrappers import BPDA, EOT

__all__ = ["APGD", "APGDT", "BPDA", "EOT", "FGSM", "MIM", "PGD", "SAPGD", "Square"]
__all__ += ["apgd", "apgdt", "fgsm", "mim", "pgd", "sapgd", "square"]
