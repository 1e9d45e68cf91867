"""White-box attacks: they see a callable from inputs to logits, never a model class."""

from .projected import FGSM, MIM, PGD, fgsm, mim, pgd

__all__ = ["FGSM", "MIM", "PGD", "fgsm", "mim", "pgd"]
