"""Metrics under the names that Micrometer gives those of Resilience4j in Prometheus: existing dashboards work.

What is counted anyway is read when somebody asks: it costs nothing per call. The sum of durations in
`resilience4j_circuitbreaker_calls_seconds` is the exception: it needs `Timers`, which listen to every call.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backstay import metrics
from backstay.metrics import COUNTER, GAUGE, SUMMARY, family, label_name, unique
from backstay.resilience import events
from backstay.resilience.bulkhead import Bulkhead
from backstay.resilience.circuit_breaker import CircuitBreaker
from backstay.resilience.events import State
from backstay.resilience.rate_limiter import RateLimiter
from backstay.resilience.retry import Retry
from backstay.resilience.thread_pool import ThreadPoolBulkhead
from backstay.resilience.time_limiter import TimeLimiter

Tags = Callable[[Any], Mapping[str, str]]

HELP = {
    "bulkhead_active_thread_count": "Threads of a thread pool that run a call.",
    "bulkhead_available_concurrent_calls": "Calls that a bulkhead would let through now.",
    "bulkhead_available_thread_count": "Threads of a thread pool that are free or not started.",
    "bulkhead_core_thread_pool_size": "Threads that a thread pool keeps.",
    "bulkhead_max_allowed_concurrent_calls": "Calls that a bulkhead lets through at the same time.",
    "bulkhead_max_thread_pool_size": "Threads that a thread pool may have.",
    "bulkhead_queue_capacity": "Calls that may wait for a thread.",
    "bulkhead_queue_depth": "Calls that wait for a thread.",
    "bulkhead_thread_pool_size": "Threads that a thread pool has.",
    "circuitbreaker_buffered_calls": "Calls in the window of a circuit breaker, by kind.",
    "circuitbreaker_calls_seconds": "Calls that a circuit breaker let through, by kind, and their duration.",
    "circuitbreaker_calls_seconds_max": "Longest call since the start, by kind.",
    "circuitbreaker_failure_rate": "Failure rate in percent; -1 while there are too few calls.",
    "circuitbreaker_not_permitted_calls_total": "Calls that a circuit breaker refused.",
    "circuitbreaker_slow_call_rate": "Rate of slow calls in percent; -1 while there are too few calls.",
    "circuitbreaker_slow_calls": "Slow calls in the window of a circuit breaker, by kind.",
    "circuitbreaker_state": "1 for the state that a circuit breaker is in, 0 for the others.",
    "ratelimiter_available_permissions": "Calls that a rate limiter lets through in this period; negative: reserved.",
    "ratelimiter_waiting_threads": "Calls that wait for a permission.",
    "retry_budget_exhausted_total": "Attempts that the retry budget did not allow.",
    "retry_calls_total": "Calls by their ending, and whether it took a retry.",
    "timelimiter_calls_total": "Calls under a time limit, by their ending.",
}
"""The families, without the prefix `resilience4j_`."""


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
    """Yield the metrics of these policies.

    Of two policies of one kind and name the second is shown as `name-2`. A tag never takes the place of a label of
    Resilience4j's (`name`, `kind`, `state`), and its name is made a legal one, as by Micrometer.
    """
    taken: dict[type, set[str]] = {}
    for policy in policies:
        found = next(((kind, read) for kind, read in _READERS if isinstance(policy, kind)), None)
        if found is None:
            continue
        kind, read = found
        own = {label_name(key): str(value) for key, value in (tags(policy) if tags is not None else {}).items()}
        labels = {**own, "name": unique(str(policy.name), taken.setdefault(_family_of(kind), set()))}
        if isinstance(policy, CircuitBreaker):
            yield from _times(policy, labels, timers)
        for name, type_, more, value in read(policy):
            yield Sample(name, type_, {**labels, **more}, value)


def exposition(policies: Iterable[Any], *, tags: Tags | None = None, timers: Timers | None = None) -> str:
    """Return the metrics in Prometheus' text format, for those who have no client library."""
    families: dict[str, list[Sample]] = {}
    for sample in samples(policies, tags=tags, timers=timers):
        families.setdefault(sample.family, []).append(sample)
    lines = [
        line
        for name, found in sorted(families.items())
        for line in family(
            f"resilience4j_{name}",
            found[0].type,
            HELP[name],
            [metrics.Sample(each.labels, each.value, each.suffix) for each in found],
        )
    ]
    return "\n".join([*lines, ""])


def _family_of(kind: type) -> type:
    """Return the class whose metric families a policy shares: both bulkheads are `resilience4j_bulkhead_…`."""
    return Bulkhead if kind is ThreadPoolBulkhead else kind


def _times(breaker: CircuitBreaker, labels: dict[str, str], timers: Timers | None) -> Iterator[Sample]:
    """Yield the numbers of calls by outcome, and their durations if these are measured."""
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
    for kind in ("successful", "failed", "timeout", "deadline"):
        yield "timelimiter_calls_total", COUNTER, {"kind": kind}, getattr(now, kind)


_READERS: tuple[tuple[type, Callable[[Any], Numbers]], ...] = (
    (CircuitBreaker, _circuit_breaker),
    (Retry, _retry),
    (RateLimiter, _rate_limiter),
    (Bulkhead, _bulkhead),
    (ThreadPoolBulkhead, _thread_pool),
    (TimeLimiter, _time_limiter),
)


__all__ = ["HELP", "Sample", "Timers", "exposition", "samples"]
