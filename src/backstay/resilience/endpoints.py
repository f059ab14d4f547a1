"""The format of Resilience4j's actuator for each kind of policy: paths, names of fields, types of events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from backstay.resilience import events
from backstay.resilience.bulkhead import Bulkhead
from backstay.resilience.circuit_breaker import CircuitBreaker
from backstay.resilience.rate_limiter import RateLimiter
from backstay.resilience.retry import Retry
from backstay.resilience.thread_pool import ThreadPoolBulkhead
from backstay.resilience.time_limiter import TimeLimiter


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The endpoints of one kind: `GET /<path>`, `GET /<events_path>[/name[/type]]`."""

    kinds: tuple[type, ...]
    path: str
    shown: str
    """The field that holds the names, or, of breakers, their details."""
    events_path: str
    events_shown: str
    """The field that holds the events."""
    name: str
    """The field of an event that names the policy."""
    types: Mapping[type[events.Event], str]
    """Resilience4j's name of each event; those that aren't here aren't shown."""
    known: frozenset[str]
    """The types that may be asked for; of some of them no event is made here."""


BREAKER_TYPES: dict[type[events.Event], str] = {
    events.CallFailed: "ERROR",
    events.CallIgnored: "IGNORED_ERROR",
    events.NotPermitted: "NOT_PERMITTED",
    events.StateTransition: "STATE_TRANSITION",
    events.BreakerReset: "RESET",
    events.FailureRateExceeded: "FAILURE_RATE_EXCEEDED",
    events.SlowCallRateExceeded: "SLOW_CALL_RATE_EXCEEDED",
    events.CallSucceeded: "SUCCESS",
}
BREAKERS = Endpoint(
    (CircuitBreaker,),
    "circuitbreakers",
    "circuitBreakers",
    "circuitbreakerevents",
    "circuitBreakerEvents",
    "circuitBreakerName",
    BREAKER_TYPES,
    frozenset({*BREAKER_TYPES.values(), "DISABLED", "FORCED_OPEN"}),
)
RETRIES = Endpoint(
    (Retry,),
    "retries",
    "retries",
    "retryevents",
    "retryEvents",
    "retryName",
    {
        events.Retrying: "RETRY",
        events.RetriesExhausted: "ERROR",
        events.RetrySucceeded: "SUCCESS",
        events.RetryIgnored: "IGNORED_ERROR",
    },
    frozenset({"RETRY", "ERROR", "SUCCESS", "IGNORED_ERROR"}),
)
RATE_LIMITERS = Endpoint(
    (RateLimiter,),
    "ratelimiters",
    "rateLimiters",
    "ratelimiterevents",
    "rateLimiterEvents",
    "rateLimiterName",
    {events.RateLimitRejected: "FAILED_ACQUIRE"},
    frozenset({"FAILED_ACQUIRE", "SUCCESSFUL_ACQUIRE", "DRAINED"}),
)
BULKHEADS = Endpoint(
    (Bulkhead, ThreadPoolBulkhead),
    "bulkheads",
    "bulkheads",
    "bulkheadevents",
    "bulkheadEvents",
    "bulkheadName",
    {events.BulkheadRejected: "CALL_REJECTED"},
    frozenset({"CALL_PERMITTED", "CALL_REJECTED", "CALL_FINISHED"}),
)
TIME_LIMITERS = Endpoint(
    (TimeLimiter,),
    "timelimiters",
    "timeLimiters",
    "timelimiterevents",
    "timeLimiterEvents",
    "timeLimiterName",
    {events.TimedOut: "TIMEOUT"},
    frozenset({"SUCCESS", "ERROR", "TIMEOUT"}),
)
ENDPOINTS = (BREAKERS, RETRIES, RATE_LIMITERS, BULKHEADS, TIME_LIMITERS)


def endpoint_of(policy: object) -> Endpoint | None:
    """Return where a policy is shown; None for one that isn't (a fallback, a pipeline)."""
    return next((each for each in ENDPOINTS if isinstance(policy, each.kinds)), None)


def circuit_breakers(breakers: Iterable[CircuitBreaker]) -> dict[str, Any]:
    """Return the body of `GET /actuator/circuitbreakers`, sorted by name."""
    found = sorted(breakers, key=lambda breaker: breaker.name)
    return {BREAKERS.shown: {breaker.name: details(breaker) for breaker in found}}


def details(breaker: CircuitBreaker) -> dict[str, Any]:
    """Return what is shown of one breaker: rates as text with a percent sign, −1.0% while there are too few calls."""
    now = breaker.statistics()
    return {
        "failureRate": f"{now.failure_rate:.1f}%",
        "slowCallRate": f"{now.slow_call_rate:.1f}%",
        "failureRateThreshold": f"{breaker.config.failure_rate:.1f}%",
        "slowCallRateThreshold": f"{breaker.config.slow.rate:.1f}%",
        "bufferedCalls": now.buffered_calls,
        "failedCalls": now.failed_calls,
        "slowCalls": now.slow_calls,
        "slowFailedCalls": now.slow_failed_calls,
        "notPermittedCalls": now.not_permitted_calls,
        "state": now.state.value,
    }


def event_details(event: events.Event, endpoint: Endpoint = BREAKERS) -> dict[str, Any]:
    """Return one event as the actuator shows it."""
    shown: dict[str, Any] = {
        endpoint.name: event.name,
        "type": endpoint.types[type(event)],
        "creationTime": event.at.isoformat(),
    }
    match event:
        case events.CallFailed(duration=duration, error=error) | events.CallIgnored(duration=duration, error=error):
            shown |= {"errorMessage": _message(error), "durationInMs": round(duration * 1000)}
        case events.CallSucceeded(duration=duration):
            shown["durationInMs"] = round(duration * 1000)
        case events.StateTransition(from_state=old, to_state=new):
            shown["stateTransition"] = f"{old.value}_TO_{new.value}"
        case events.FailureRateExceeded(rate=rate):
            shown["failureRate"] = rate
        case events.SlowCallRateExceeded(rate=rate):
            shown["slowCallRate"] = rate
        case events.Retrying(attempt=attempts, error=error) | events.RetriesExhausted(attempts=attempts, error=error):
            shown |= {"errorMessage": _message(error), "numberOfAttempts": attempts}
        case events.RetrySucceeded(attempts=attempts):
            shown |= {"errorMessage": None, "numberOfAttempts": attempts - 1}  # retries, as Resilience4j counts there
        case events.RetryIgnored(error=error):
            shown |= {"errorMessage": _message(error), "numberOfAttempts": 0}
    return shown


def _message(error: BaseException | None) -> str | None:
    return None if error is None else f"{type(error).__name__}: {error}"


__all__ = [
    "BREAKERS",
    "BREAKER_TYPES",
    "BULKHEADS",
    "ENDPOINTS",
    "RATE_LIMITERS",
    "RETRIES",
    "TIME_LIMITERS",
    "Endpoint",
    "circuit_breakers",
    "details",
    "endpoint_of",
    "event_details",
]
