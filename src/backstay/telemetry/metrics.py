"""Metrics: what is counted anyway, as plain integers in `statistics()`, is read when somebody asks for it.

Every part with a `statistics()` shows its numbers as `backstay_<kind>_<field>{name="..."}`; states show as 1 under
their name. Policies of `backstay.resilience` show under Resilience4j's names as well. Nothing is measured twice and
nothing costs anything between two readings.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from backstay.resilience.meters import samples
from backstay.telemetry.histogram import HistogramStatistics

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_process: CollectorRegistry | None = None


def exposition(
    service: str, routes: Sequence[Any], active: int, parts: Iterable[Any], *, refused: Mapping[str, int] | None = None
) -> bytes:
    """The text form of the routes' counts, of refusals by reason, and of the statistics of all parts."""
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
        gauges: dict[str, GaugeMetricFamily] = {}
        histograms: dict[str, HistogramMetricFamily] = {}
        names: dict[tuple[str, str], int] = {}
        for part in _with_inner(self._parts):
            kind = _kind(part)
            name = str(getattr(part, "name", None) or getattr(part, "group", None) or self._service)
            count = names[kind, name] = names.get((kind, name), 0) + 1
            if count > 1:  # two series of one name would spoil the whole answer
                name = f"{name}-{count}"
            record = part.statistics()
            for field, seen in _histograms(record):
                metric = f"backstay_{kind}_{field}_seconds"
                family = histograms.get(metric)
                if family is None:
                    family = histograms[metric] = HistogramMetricFamily(metric, _text(field, kind), labels=["name"])
                family.add_metric([name], _cumulative(seen.bounds, seen.buckets), seen.total)
            for field, label, value in _numbers(record):
                metric = f"backstay_{kind}_{field}"
                gauge = gauges.get(metric)
                if gauge is None:
                    gauge = gauges[metric] = GaugeMetricFamily(metric, _text(field, kind), labels=["name", "of"])
                gauge.add_metric([name, label], value)
        yield from gauges.values()
        yield from histograms.values()


def _requests(routes: Sequence[Any]) -> Iterator[Metric]:
    counts = CounterMetricFamily("http_server_requests", "Requests answered.", labels=["method", "route", "status"])
    times = HistogramMetricFamily("http_server_request_seconds", "Time to answer.", labels=["method", "route"])
    for route in routes:
        path = route.path or "(none)"
        for status, count in sorted(route.statuses.items()):
            counts.add_metric([route.method, path, str(status)], count)
        times.add_metric([route.method, path], _cumulative(route.bounds, route.buckets), route.seconds)
    yield counts
    yield times


def _cumulative(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Counts by bucket as Prometheus wants them: each with all below it."""
    names = [*map(str, bounds), "+Inf"]
    return list(zip(names, accumulate(counts), strict=True))


def _text(field: str, kind: str) -> str:
    return f"{field.replace('_', ' ').capitalize()} of the {kind.replace('_', ' ')}."


def _histograms(record: Any) -> Iterator[tuple[str, HistogramStatistics]]:
    for field in dataclasses.fields(record) if dataclasses.is_dataclass(record) else ():
        if isinstance(value := getattr(record, field.name), HistogramStatistics):
            yield field.name, value


def _resilience(parts: Iterable[Any]) -> Iterator[Metric]:
    """The policies among the parts as Micrometer shows Resilience4j's; of two of one kind and name, the first."""
    families: dict[str, Metric] = {}
    shown: set[tuple[str, ...]] = set()
    for sample in samples(parts):
        series = (sample.family, sample.suffix, *sample.labels.values())
        if series in shown:
            continue
        shown.add(series)
        name = f"resilience4j_{sample.family}"
        family = families.setdefault(name, Metric(name.removesuffix("_total"), "As in Resilience4j.", sample.type))
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


def _numbers(record: Any, prefix: str = "") -> Iterator[tuple[str, str, float]]:
    """The numbers in a record of statistics: field, label (the key within a mapping, a state's name) and value."""
    if not dataclasses.is_dataclass(record):
        return
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        name = prefix + field.name
        if isinstance(value, (bool, int, float)):
            yield name, "", float(value)
        elif isinstance(value, Enum):
            yield name, value.name.lower(), 1.0
        elif isinstance(value, HistogramStatistics):
            continue
        elif dataclasses.is_dataclass(value):
            yield from _numbers(value, name + "_")
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, (bool, int, float)):
                    yield name, str(key), float(inner)


def _kind(part: object) -> str:
    return _WORDS.sub("_", type(part).__name__.strip("_")).lower()


def _process_registry() -> CollectorRegistry:
    global _process  # noqa: PLW0603 - made when first asked for
    if _process is None:
        _process = CollectorRegistry()
        ProcessCollector(registry=_process)
        PlatformCollector(registry=_process)
    return _process


__all__ = ["exposition"]
