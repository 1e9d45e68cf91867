"""White-box attacks: they see a callable from inputs to logits, never a model class."""

from .linf import FGSM, PGD, fgsm, pgd

__all__ = ["FGSM", "PGD", "fgsm", "pgd"]
