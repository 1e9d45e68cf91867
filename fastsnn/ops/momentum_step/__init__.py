"""One iteration of Auto-PGD in the ball of Linf: a sign-gradient step, and part of the step before."""

from .op import step

__all__ = ["step"]
