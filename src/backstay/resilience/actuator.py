"""Circuit breakers as Resilience4j's actuator shows them, so that what reads `/actuator/circuitbreakers` works."""

from collections.abc import Iterable
from typing import Any

from backstay.resilience.circuit_breaker import CircuitBreaker


def circuit_breakers(breakers: Iterable[CircuitBreaker]) -> dict[str, Any]:
    """The body of `GET /actuator/circuitbreakers`."""
    return {"circuitBreakers": {breaker.name: details(breaker) for breaker in breakers}}


def details(breaker: CircuitBreaker) -> dict[str, Any]:
    """One breaker: rates as text with a percent sign, −1.0% while there are too few calls."""
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


__all__ = ["circuit_breakers", "details"]
