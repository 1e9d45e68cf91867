"""One iteration of a sign-gradient attack: step, projection into the ball, clipping to [0, 1]."""

from .op import attack_step, default_batch_axis, per_sample, step

__all__ = ["attack_step", "default_batch_axis", "per_sample", "step"]
