"""Request counts as plain integers, which the metrics page turns into families."""

from bisect import bisect_left
from dataclasses import dataclass

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram of durations, seconds."""


@dataclass(frozen=True, slots=True)
class RouteStatistics:
    """Counts of one route."""

    method: str
    path: str
    statuses: dict[int, int]
    """Requests by status."""
    buckets: tuple[int, ...]
    """Requests by duration; one more than `BUCKETS`, not cumulative."""
    seconds: float
    """Sum of all durations."""
    bounds: tuple[float, ...] = BUCKETS


class RouteCounters:
    """Counts of one route; changed by the event loop only."""

    __slots__ = ("_buckets", "_seconds", "_statuses", "method", "path")

    def __init__(self, method: str, path: str) -> None:
        self.method = method
        self.path = path
        self._statuses: dict[int, int] = {}
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def count(self, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._statuses[status] = self._statuses.get(status, 0) + 1
        self._buckets[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def statistics(self) -> RouteStatistics:
        """Return the counts so far."""
        return RouteStatistics(self.method, self.path, dict(self._statuses), tuple(self._buckets), self._seconds)


__all__ = ["BUCKETS", "RouteCounters", "RouteStatistics"]
