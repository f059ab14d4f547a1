"""Counters as plain integers, formatted for Prometheus only when scraped."""

from bisect import bisect_left
from collections.abc import Iterable

from backstay.metrics import COUNTER, GAUGE, HISTOGRAM, Sample, family

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the duration histogram, in seconds."""

NO_ROUTE = "-"


class RouteMetrics:
    """Counters of one route."""

    __slots__ = ("buckets", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def count(self, status: int, seconds: float) -> None:
        """One exchange ended."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds


class Metrics:
    """All counters of a gateway."""

    def __init__(self) -> None:
        self.routes: dict[str, RouteMetrics] = {}
        self.replays = 0
        """Requests sent again because a kept connection had died."""
        self.ejections = 0
        """Instances left out because they refused a connection."""
        self.waiting = 0
        """Requests that wait for an instance right now."""
        self.client_gone = 0
        """Clients that left before their answer was complete."""

    def route(self, route: str) -> RouteMetrics:
        """Return the counters of a route."""
        found = self.routes.get(route)
        if found is None:
            found = self.routes[route] = RouteMetrics()
        return found

    def text(
        self,
        gauges: Iterable[tuple[str, str, float]] = (),
        counters: Iterable[tuple[str, str, float]] = (),
    ) -> str:
        """Return the Prometheus exposition; gauges and counters kept elsewhere are (name, help, value)."""
        requests = [
            Sample({"route": route, "status": str(status)}, count)
            for route, metrics in self.routes.items()
            for status, count in sorted(metrics.statuses.items())
        ]
        times = [sample for route, metrics in self.routes.items() for sample in _histogram(route, metrics)]
        lines = [
            *family("backstay_gateway_requests_total", COUNTER, "Exchanges by route and status.", requests),
            *family("backstay_gateway_request_seconds", HISTOGRAM, "Duration of exchanges by route.", times),
            *_single("backstay_gateway_replays_total", COUNTER, "Requests sent again on a new one.", self.replays),
            *_single("backstay_gateway_ejections_total", COUNTER, "Instances left out for a while.", self.ejections),
            *_single("backstay_gateway_client_gone_total", COUNTER, "Clients that left early.", self.client_gone),
        ]
        for name, text, value in counters:
            lines += _single(name, COUNTER, text, value)
        for name, text, value in gauges:
            lines += _single(name, GAUGE, text, value)
        return "\n".join(lines) + "\n"


def _single(name: str, kind: str, text: str, value: float) -> Iterable[str]:
    return family(name, kind, text, [Sample({}, value)])


def _histogram(route: str, metrics: RouteMetrics) -> Iterable[Sample]:
    total = 0
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), metrics.buckets, strict=True):
        total += count
        yield Sample({"route": route, "le": bound}, total, "_bucket")
    yield Sample({"route": route}, metrics.seconds, "_sum")
    yield Sample({"route": route}, total, "_count")
