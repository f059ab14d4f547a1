"""A page of every part of the platform and the shop, with large numbers in each field, and pages of other servers."""

import dataclasses
from enum import Enum
from types import SimpleNamespace
from typing import Any, get_args, get_origin

from tests.docs.metric_names import NO_PARTS, records

import backstay.resilience as r
from backstay.discovery.leases import LeaseStatistics
from backstay.discovery.server import _metrics
from backstay.gateway.metrics import Metrics
from backstay.resilience import meters
from backstay.telemetry.histogram import HistogramStatistics
from backstay.telemetry.metrics import exposition

LARGE = 12_345_678


def filled(kind: Any) -> Any:
    """Return a value of that type."""
    if kind is HistogramStatistics:
        return HistogramStatistics((1.0, 2.0), (1, LARGE, 3), 4.5)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return kind(**{field.name: filled(field.type) for field in dataclasses.fields(kind)})
    if hasattr(kind, "__metadata__"):
        return filled(get_args(kind)[0])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind))
    if kind in (int, float, bool, str):
        return {int: LARGE, float: 0.25, bool: True, str: "x"}[kind]
    if getattr(get_origin(kind), "__name__", "") in ("dict", "Mapping"):
        return {"a": filled(get_args(kind)[1])}
    return filled(get_args(kind)[0]) if get_args(kind) and get_origin(kind) is not tuple else ()


def parts() -> list[Any]:
    """Return a part of each class that has statistics, two of each by the same name."""
    found: list[Any] = []
    for kind, record in records().items():
        if kind.__name__ not in NO_PARTS:
            made = type(kind.__name__, (), {"name": "x", "statistics": lambda _, record=record: filled(record)})
            found += [made(), made()]
    return found


def policies() -> list[Any]:
    """Return policies, two of each kind by the same name."""
    return [
        policy
        for _ in range(2)
        for policy in (
            r.CircuitBreaker('pay"x\n'),
            r.Retry(2, name="pay"),
            r.Bulkhead(3, name="pay"),
            r.RateLimiter(5, name="pay"),
            r.TimeLimiter(1, name="pay"),
        )
    ]


def pages() -> dict[str, str]:
    """Return a page of each kind of server."""
    statuses = {200: LARGE, 404: 1}
    routes = [
        SimpleNamespace(method="GET", path=path, statuses=statuses, buckets=(1, 2), bounds=(0.5,), seconds=1.5)
        for path in ("/a", "", None)
    ]
    refusals: Any = SimpleNamespace(unauthorized=1, forbidden=2)
    gateway = Metrics()
    gateway.route('a"b\\').count(200, 0.1)
    gateway.replays = LARGE
    gateway.replays = LARGE
    timers = r.Timers()
    guards = policies()
    for guard in guards:
        if isinstance(guard, r.CircuitBreaker):
            timers.listen(guard)
    tags = {"team-name": "a", "1st.tag": 'b"', "name": "mine", "kind": "mine", "__x": "y", "ümlaut": "z"}
    return {
        "service": exposition("bar", routes, 1, [*parts(), *policies()], refused={"busy": LARGE}).decode(),
        "gateway": gateway.text([("backstay_gateway_clients", "Open client connections.", 0.5)])
        + meters.exposition(guards, tags=lambda policy: tags, timers=timers),
        "registry": _metrics(filled(LeaseStatistics), refusals).decode(),
    }
