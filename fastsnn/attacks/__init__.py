"""Attacks: they see a callable from inputs to logits, never a model class."""

from .auto_pgd import APGD, APGDT, apgd, apgdt
from .projected import FGSM, MIM, PGD, fgsm, mim, pgd
from .random_search import Square, square

__all__ = ["APGD", "APGDT", "FGSM", "MIM", "PGD", "Square", "apgd", "apgdt", "fgsm", "mim", "pgd", "square"]
