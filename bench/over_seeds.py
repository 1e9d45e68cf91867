"""What several seeds of training say of a number: mean, standard error, and whether the mean differs from 0.

Seeds are the unit: every value is of a network trained anew, and all of them are scored on the same test images.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

_LEVEL = 0.95


@dataclass(frozen=True)
class OverSeeds:
    """A number for each seed, in the order of the seeds; in percent, or points where it is a difference."""

    values: tuple[float, ...]

    def __sub__(self, other: OverSeeds) -> OverSeeds:
        """Return the difference seed by seed."""
        return OverSeeds(tuple(one - two for one, two in zip(self.values, other.values, strict=True)))

    @property
    def alone(self) -> bool:
        """Whether there is one seed only, which tells nothing of the spread."""
        return len(self.values) == 1

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def standard_error(self) -> float:
        """Of the mean, from the spread over seeds; NaN for one seed."""
        return math.nan if self.alone else statistics.stdev(self.values) / math.sqrt(len(self.values))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean by Student's t: with three seeds 4.3 standard errors to either side."""
        if self.alone:
            return -math.inf, math.inf
        from scipy.stats import t

        half = float(t.ppf((1 + _LEVEL) / 2, len(self.values) - 1)) * self.standard_error
        return self.mean - half, self.mean + half

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 0."""
        low, high = self.interval
        return low > 0 or high < 0

    def as_dict(self) -> dict[str, object]:
        """Return everything, as JSON holds it; what one seed does not tell is None."""
        return {
            "values": self.values,
            "mean": self.mean,
            "standard_error": None if self.alone else self.standard_error,
            "least": min(self.values),
            "most": max(self.values),
            "interval_95": None if self.alone else self.interval,
        }
