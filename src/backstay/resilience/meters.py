"""Metrics under the names that Micrometer gives those of Resilience4j in Prometheus: existing dashboards work.

What is counted anyway is read when somebody asks: it costs nothing per call. The sum of durations in
`resilience4j_circuitbreaker_calls_seconds` is the exception: it needs `Timers`, which listen to every call.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backstay.resilience import events
from backstay.resilience.bulkhead import Bulkhead
from backstay.resilience.circuit_breaker import CircuitBreaker
from backstay.resilience.events import State
from backstay.resilience.rate_limiter import RateLimiter
from backstay.resilience.retry import Retry
from backstay.resilience.thread_pool import ThreadPoolBulkhead
from backstay.resilience.time_limiter import TimeLimiter

GAUGE, COUNTER, SUMMARY = "gauge", "counter", "summary"
Tags = Callable[[Any], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number: `resilience4j_<family><suffix>{labels} value`; `type` is Prometheus's of the family."""

    family: str
    type: str
    labels: Mapping[str, str]
    value: float
    suffix: str = ""


class Timers:
    """Sums and maxima of the durations of calls, for as long as it listens."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], list[float]] = {}  # (name, kind) → sum, maximum
        self._stop: list[Callable[[], None]] = []

    def listen(self, breaker: CircuitBreaker) -> None:
        """Measure the calls of this breaker: each of them costs more from now on."""
        for event, kind in _OUTCOMES.items():
            total = self.seconds.setdefault((breaker.name, kind), [0.0, 0.0])
            self._stop.append(breaker.on(event, _adder(total)))

    def close(self) -> None:
        """Listen no longer."""
        while self._stop:
            self._stop.pop()()


_OUTCOMES: dict[type[events.Event], str] = {
    events.CallSucceeded: "successful",
    events.CallFailed: "failed",
    events.CallIgnored: "ignored",
}


def _adder(total: list[float]) -> Callable[[Any], None]:
    def add(event: Any) -> None:
        total[0] += event.duration
        total[1] = max(total[1], event.duration)

    return add


def samples(policies: Iterable[Any], *, tags: Tags | None = None, timers: Timers | None = None) -> Iterator[Sample]:
    """The numbers of these policies."""
    for policy in policies:
        read = next((read for kind, read in _READERS if isinstance(policy, kind)), None)
        if read is None:
            continue
        labels = {"name": str(policy.name), **(tags(policy) if tags is not None else {})}
        if isinstance(policy, CircuitBreaker):
            yield from _times(policy, labels, timers)
        for family, type_, more, value in read(policy):
            yield Sample(family, type_, {**labels, **more}, value)


def exposition(policies: Iterable[Any], *, tags: Tags | None = None, timers: Timers | None = None) -> str:
    """The numbers as Prometheus's text, for those who have no client library."""
    lines: list[str] = []
    last = ""
    for sample in sorted(samples(policies, tags=tags, timers=timers), key=lambda each: each.family):
        if sample.family != last:
            last = sample.family
            lines.append(f"# TYPE resilience4j_{last} {sample.type}")
        labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels.items())
        lines.append(f"resilience4j_{sample.family}{sample.suffix}{{{labels}}} {sample.value:g}")
    return "\n".join([*lines, ""])


def _times(breaker: CircuitBreaker, labels: dict[str, str], timers: Timers | None) -> Iterator[Sample]:
    """How many calls ended how, and how long they took if that is measured."""
    family, now = "circuitbreaker_calls_seconds", breaker.statistics()
    ended = (("successful", now.succeeded_total), ("failed", now.failed_total), ("ignored", now.ignored_total))
    for kind, count in ended:
        with_kind = {**labels, "kind": kind}
        yield Sample(family, SUMMARY, with_kind, count, "_count")
        times = timers.seconds.get((breaker.name, kind)) if timers is not None else None
        if times is not None:
            yield Sample(family, SUMMARY, with_kind, times[0], "_sum")
            yield Sample(f"{family}_max", GAUGE, with_kind, times[1])


Numbers = Iterator[tuple[str, str, dict[str, str], float]]


def _circuit_breaker(breaker: CircuitBreaker) -> Numbers:
    now = breaker.statistics()
    for state in State:
        yield "circuitbreaker_state", GAUGE, {"state": state.value.lower()}, float(state is now.state)
    succeeded, slow = now.buffered_calls - now.failed_calls, now.slow_calls - now.slow_failed_calls
    held = (("successful", succeeded, slow), ("failed", now.failed_calls, now.slow_failed_calls))
    for kind, buffered, slowly in held:
        yield "circuitbreaker_buffered_calls", GAUGE, {"kind": kind}, buffered
        yield "circuitbreaker_slow_calls", GAUGE, {"kind": kind}, slowly
    yield "circuitbreaker_failure_rate", GAUGE, {}, now.failure_rate
    yield "circuitbreaker_slow_call_rate", GAUGE, {}, now.slow_call_rate
    yield "circuitbreaker_not_permitted_calls_total", COUNTER, {"kind": "not_permitted"}, now.not_permitted_total


def _retry(retry: Retry) -> Numbers:
    now = retry.statistics()
    for kind in ("successful_without_retry", "successful_with_retry", "failed_without_retry", "failed_with_retry"):
        yield "retry_calls_total", COUNTER, {"kind": kind}, getattr(now, kind)
    yield "retry_budget_exhausted_total", COUNTER, {}, now.budget_exhausted_total


def _rate_limiter(limiter: RateLimiter) -> Numbers:
    now = limiter.statistics()
    yield "ratelimiter_available_permissions", GAUGE, {}, now.available_permissions
    yield "ratelimiter_waiting_threads", GAUGE, {}, now.waiting


def _bulkhead(bulkhead: Bulkhead) -> Numbers:
    now = bulkhead.statistics()
    yield "bulkhead_available_concurrent_calls", GAUGE, {}, now.max_concurrent_calls - now.in_flight
    yield "bulkhead_max_allowed_concurrent_calls", GAUGE, {}, now.max_concurrent_calls


def _thread_pool(pool: ThreadPoolBulkhead) -> Numbers:
    now = pool.statistics()
    yield "bulkhead_queue_depth", GAUGE, {}, now.queue_depth
    yield "bulkhead_queue_capacity", GAUGE, {}, now.queue_capacity
    yield "bulkhead_thread_pool_size", GAUGE, {}, now.thread_pool_size
    yield "bulkhead_max_thread_pool_size", GAUGE, {}, now.max_thread_pool_size
    yield "bulkhead_core_thread_pool_size", GAUGE, {}, now.max_thread_pool_size
    yield "bulkhead_active_thread_count", GAUGE, {}, now.active_thread_count
    yield "bulkhead_available_thread_count", GAUGE, {}, now.max_thread_pool_size - now.active_thread_count


def _time_limiter(limiter: TimeLimiter) -> Numbers:
    now = limiter.statistics()
    for kind in ("successful", "failed", "timeout"):
        yield "timelimiter_calls_total", COUNTER, {"kind": kind}, getattr(now, kind)


_READERS: tuple[tuple[type, Callable[[Any], Numbers]], ...] = (
    (CircuitBreaker, _circuit_breaker),
    (Retry, _retry),
    (RateLimiter, _rate_limiter),
    (Bulkhead, _bulkhead),
    (ThreadPoolBulkhead, _thread_pool),
    (TimeLimiter, _time_limiter),
)


def _escaped(value: str) -> str:
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


__all__ = ["Sample", "Timers", "exposition", "samples"]
