"""Metrics: plain integers in `statistics()`, read when Prometheus scrapes them.

Every part with a `statistics()` shows its numbers as `backstay_<kind>_<field>{name="..."}`, those that only grow
(`Count`) as counters, `backstay_<kind>_<field>_total`; states show as 1 under their name. Policies of
`backstay.resilience` show under Resilience4j's names as well. Nothing is measured twice and nothing costs anything
between two readings.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import accumulate
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from backstay.metrics import COUNTER, unique
from backstay.resilience.meters import HELP, samples
from backstay.telemetry.histogram import HistogramStatistics

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_process: CollectorRegistry | None = None


def exposition(
    service: str, routes: Sequence[Any], active: int, parts: Iterable[Any], *, refused: Mapping[str, int] | None = None
) -> bytes:
    """Return the text form of the routes' counts, of refusals by reason, and of the statistics of all parts."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(service, routes, active, parts, refused or {}))
    return generate_latest(registry) + generate_latest(_process_registry())


class _Collector:
    def __init__(
        self, service: str, routes: Sequence[Any], active: int, parts: Iterable[Any], refused: Mapping[str, int]
    ) -> None:
        self._service = service
        self._routes = routes
        self._active = active
        self._parts = list(parts)
        self._refused = refused

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("http_server_active_requests", "Requests being answered now.", value=self._active)
        yield from _requests(self._routes)
        refusals = CounterMetricFamily("http_server_refused", "Requests refused before any work.", labels=["reason"])
        for reason, count in self._refused.items():
            refusals.add_metric([reason], count)
        yield refusals
        yield from _resilience(_with_inner(self._parts))
        yield from self._statistics()

    def _statistics(self) -> Iterator[Metric]:
        numbers: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        histograms: dict[str, HistogramMetricFamily] = {}
        taken: dict[str, set[str]] = {}
        for part in _with_inner(self._parts):
            kind = _kind(type(part))
            given = str(getattr(part, "name", None) or getattr(part, "group", None) or self._service)
            name = unique(given, taken.setdefault(kind, set()))
            record = part.statistics()
            for field, seen in _histograms(record):
                metric = f"backstay_{kind}_{field}_seconds"
                histogram = histograms.get(metric)
                if histogram is None:
                    histogram = histograms[metric] = HistogramMetricFamily(metric, _text(field, kind), labels=["name"])
                histogram.add_metric([name], _cumulative(seen.bounds, seen.buckets), seen.total)
            for number in _numbers(record):
                metric = f"backstay_{kind}_{number.field}"
                family = numbers.get(metric)
                if family is None:
                    make = CounterMetricFamily if number.grows else GaugeMetricFamily
                    family = numbers[metric] = make(metric, _text(number.field, kind), labels=["name", "of"])
                family.add_metric([name, number.label], number.value)
        yield from numbers.values()
        yield from histograms.values()


def _requests(routes: Sequence[Any]) -> Iterator[Metric]:
    counts = CounterMetricFamily("http_server_requests", "Requests answered.", labels=["method", "route", "status"])
    times = HistogramMetricFamily("http_server_request_seconds", "Time to answer.", labels=["method", "route"])
    statuses: dict[tuple[str, str, str], int] = {}
    for route in routes:
        path = route.path or "(none)"
        for status, count in route.statuses.items():
            key = route.method, path, str(status)
            statuses[key] = statuses.get(key, 0) + count
    for key, count in sorted(statuses.items()):
        counts.add_metric(list(key), count)
    merged: dict[tuple[str, str], tuple[list[int], float, Sequence[float]]] = {}
    for route in routes:
        buckets, seconds, bounds = merged.get(
            (route.method, route.path or "(none)"), ([0] * len(route.buckets), 0.0, route.bounds)
        )
        added = [one + other for one, other in zip(buckets, route.buckets, strict=True)]
        merged[route.method, route.path or "(none)"] = added, seconds + route.seconds, bounds
    for (method, path), (buckets, seconds, bounds) in merged.items():
        times.add_metric([method, path], _cumulative(bounds, buckets), seconds)
    yield counts
    yield times


def _cumulative(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Return cumulative counts by bucket, as Prometheus expects them."""
    names = [*map(str, bounds), "+Inf"]
    return list(zip(names, accumulate(counts), strict=True))


def _text(field: str, kind: str) -> str:
    return f"{field.replace('_', ' ').capitalize()} of the {kind.replace('_', ' ')}."


def _histograms(record: Any) -> Iterator[tuple[str, HistogramStatistics]]:
    for field in dataclasses.fields(record) if dataclasses.is_dataclass(record) else ():
        if isinstance(value := getattr(record, field.name), HistogramStatistics):
            yield field.name, value


def _resilience(parts: Iterable[Any]) -> Iterator[Metric]:
    """Yield the metrics of the policies among the parts, as Micrometer names Resilience4j's."""
    families: dict[str, Metric] = {}
    for sample in samples(parts):
        name = f"resilience4j_{sample.family}"
        family = families.get(name)
        if family is None:
            family = families[name] = Metric(name.removesuffix("_total"), HELP[sample.family], sample.type)
        family.add_sample(name + sample.suffix, dict(sample.labels), sample.value)
    yield from families.values()


def _with_inner(parts: Iterable[Any]) -> Iterator[Any]:
    """Every part that counts something, and the policies of pipelines among them; each once."""
    seen: set[int] = set()
    for part in parts:
        pipeline = getattr(part, "pipeline", None)
        for each in (part, pipeline, *getattr(pipeline, "layers", ())):
            if callable(getattr(each, "statistics", None)) and id(each) not in seen:
                seen.add(id(each))
                yield each


class _Number(NamedTuple):
    """A number in a record of statistics; `label` is the key within a mapping, or a state's name."""

    field: str
    label: str
    value: float
    grows: bool


def _numbers(record: Any, prefix: str = "") -> Iterator[_Number]:
    if not dataclasses.is_dataclass(record):
        return
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        name = prefix + field.name
        grows = field.name.endswith("_total") or COUNTER in getattr(field.type, "__metadata__", ())
        shown = _metric_field(name, grows=grows)
        if isinstance(value, (bool, int, float)):
            yield _Number(shown, "", float(value), grows)
        elif isinstance(value, Enum):
            yield _Number(shown, value.name.lower(), 1.0, False)
        elif isinstance(value, HistogramStatistics):
            continue
        elif dataclasses.is_dataclass(value):
            yield from _numbers(value, name + "_")
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                if isinstance(inner, (bool, int, float)):
                    yield _Number(shown, str(key), float(inner), grows)


def family_name(part: type, field: str, *, grows: bool) -> str:
    """Return the name of the family that shows a field of a part's statistics."""
    name = f"backstay_{_kind(part)}_{_metric_field(field, grows=grows)}"
    return f"{name}_total" if grows else name


def _metric_field(name: str, *, grows: bool) -> str:
    """Return the field's name as part of a metric's: there the suffixes `_total` and `_count` are reserved."""
    if grows:
        return name.removesuffix("_total")
    return f"{name.removesuffix('_count')}s" if name.endswith("_count") else name


def _kind(part: type) -> str:
    return _WORDS.sub("_", part.__name__.strip("_")).lower()


def _process_registry() -> CollectorRegistry:
    global _process  # noqa: PLW0603 - made when first asked for
    if _process is None:
        _process = CollectorRegistry()
        ProcessCollector(registry=_process)
        PlatformCollector(registry=_process)
    return _process


__all__ = ["exposition", "family_name"]
