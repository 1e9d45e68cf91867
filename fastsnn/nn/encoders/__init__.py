"""From images, or event frames, to encoded input [T, B, ...]: the codings by name, and none of them keeps a state."""

from .direct import DirectEncoder
from .events import EventFrames
from .latency import LatencyEncoder
from .phase import PhaseEncoder
from .rate import RateEncoder

__all__ = ["ENCODERS", "DirectEncoder", "EventFrames", "LatencyEncoder", "PhaseEncoder", "RateEncoder"]

ENCODERS = {"phase": PhaseEncoder, "rate": RateEncoder, "latency": LatencyEncoder, "direct": DirectEncoder}
