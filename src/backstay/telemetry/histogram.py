"""A histogram of plain integers: one bisection per observation, formatted only when scraped."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds for durations that may become long, seconds."""


@dataclass(frozen=True, slots=True)
class HistogramStatistics:
    """Observations: counts below each of `bounds` and above the last one (not cumulative), and the sum."""

    bounds: tuple[float, ...]
    buckets: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """Observations."""
        return sum(self.buckets)


class Histogram:
    """Counts of observations by size; changed by one thread only."""

    __slots__ = ("_bounds", "_buckets", "_total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = tuple(bounds)
        self._buckets = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def observe(self, value: float, weight: int = 1) -> None:
        """Count `value`, `weight` times."""
        self._buckets[bisect_left(self._bounds, value)] += weight
        self._total += value * weight

    def statistics(self) -> HistogramStatistics:
        """Return the counts so far."""
        return HistogramStatistics(self._bounds, tuple(self._buckets), self._total)


__all__ = ["SECONDS", "Histogram", "HistogramStatistics"]
