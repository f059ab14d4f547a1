"""Counters as plain integers, turned into Prometheus text only when somebody asks."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the duration histogram, in seconds."""

NO_ROUTE = "-"


class RouteMetrics:
    """What happened on one route."""

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
        """The counters of a route."""
        found = self.routes.get(route)
        if found is None:
            found = self.routes[route] = RouteMetrics()
        return found

    def text(
        self,
        gauges: Iterable[tuple[str, str, float]] = (),
        counters: Iterable[tuple[str, str, float]] = (),
    ) -> str:
        """The Prometheus exposition; gauges and counters kept elsewhere are (name, help, value)."""
        lines = [
            *_head("backstay_gateway_requests_total", "counter", "Exchanges by route and status."),
            *(
                f'backstay_gateway_requests_total{{route="{_label(route)}",status="{status}"}} {count}'
                for route, metrics in self.routes.items()
                for status, count in sorted(metrics.statuses.items())
            ),
            *_head("backstay_gateway_request_seconds", "histogram", "Duration of exchanges by route."),
            *(line for route, metrics in self.routes.items() for line in _histogram(_label(route), metrics)),
            *_single(
                "backstay_gateway_replays_total", "counter", "Requests sent again on a new connection.", self.replays
            ),
            *_single("backstay_gateway_ejections_total", "counter", "Instances left out for a while.", self.ejections),
            *_single("backstay_gateway_client_gone_total", "counter", "Clients that left early.", self.client_gone),
        ]
        for name, text, value in counters:
            lines += _single(name, "counter", text, value)
        for name, text, value in gauges:
            lines += _single(name, "gauge", text, value)
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> Sequence[str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _single(name: str, kind: str, text: str, value: float) -> Sequence[str]:
    return *_head(name, kind, text), f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _histogram(route: str, metrics: RouteMetrics) -> Iterable[str]:
    total = 0
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), metrics.buckets, strict=True):
        total += count
        yield f'backstay_gateway_request_seconds_bucket{{route="{route}",le="{bound}"}} {total}'
    yield f'backstay_gateway_request_seconds_sum{{route="{route}"}} {metrics.seconds:.6f}'
    yield f'backstay_gateway_request_seconds_count{{route="{route}"}} {total}'


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
