"""Latencies in buckets whose width grows with their value: every percentile to one percent, in constant memory."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GROWTH = 1.01  # each bucket ends one percent above the one before
SMALLEST = 1e-5  # seconds
_FACTOR = 1 / math.log(GROWTH)
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)


@dataclass(frozen=True, slots=True)
class Point:
    """So many percent of all were not slower than `seconds`."""

    percent: float
    seconds: float


class Histogram:
    """Counts by bucket; histograms of several clients add up to one."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.longest = 0.0

    def record(self, seconds: float) -> None:
        """One more latency."""
        bucket = max(0, int(math.log(max(seconds, SMALLEST) / SMALLEST) * _FACTOR))
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.count += 1
        self.longest = max(self.longest, seconds)

    def add(self, other: "Histogram") -> None:
        """Count what another one has counted."""
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self.count += other.count
        self.longest = max(self.longest, other.longest)

    def percentile(self, percent: float) -> float:
        """Seconds that so many percent were not slower than; 0 when nothing was recorded."""
        if not self.count:
            return 0.0
        wanted, passed = math.ceil(self.count * percent / 100), 0
        for bucket in sorted(self._counts):
            passed += self._counts[bucket]
            if passed >= wanted:
                return min(SMALLEST * GROWTH ** (bucket + 1), self.longest)
        return self.longest

    def curve(self) -> list[Point]:
        """Points for a plot: from the median on ever closer to all."""
        percents = [0.0, 25.0, 50.0]
        left = 50.0
        while left * self.count > 100 and left > 1e-4:
            left /= 2
            percents.append(100 - left)
        return [Point(percent, self.percentile(percent)) for percent in [*percents, 100.0]]


def together(histograms: Iterable[Histogram]) -> Histogram:
    """All of them as one."""
    found = Histogram()
    for histogram in histograms:
        found.add(histogram)
    return found


def shown(histogram: Histogram, percents: Sequence[float] = PERCENTILES) -> list[str]:
    """Percentiles in milliseconds, for a table."""
    return [f"{histogram.percentile(percent) * 1000:,.1f}" for percent in percents]
