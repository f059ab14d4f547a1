"""Health of circuit breakers and rate limiters, with Resilience4j's words.

A breaker that is open is `CIRCUIT_OPEN` and no reason to restart or to avoid this service, unless asked for with
`may_fail`: then it is `DOWN`, and so is the whole.
"""

from collections.abc import Iterable
from typing import Any

from backstay.resilience.circuit_breaker import CircuitBreaker
from backstay.resilience.endpoints import details
from backstay.resilience.events import State
from backstay.resilience.rate_limiter import RateLimiter

UP, DOWN, UNKNOWN = "UP", "DOWN", "UNKNOWN"
WORDS = {State.CLOSED: UP, State.OPEN: "CIRCUIT_OPEN", State.HALF_OPEN: "CIRCUIT_HALF_OPEN"}


def health(policies: Iterable[Any], *, may_fail: bool = False) -> dict[str, Any]:
    """Return the body of a health endpoint: a status, and each component's status with details."""
    components: dict[str, Any] = {}
    for policy in policies:
        if isinstance(policy, CircuitBreaker):
            components[policy.name] = {"status": _breaker(policy, may_fail), "details": details(policy)}
        elif isinstance(policy, RateLimiter):
            now = policy.statistics()
            shown = {"availablePermissions": now.available_permissions, "numberOfWaitingThreads": now.waiting}
            components[policy.name] = {"status": _limiter(policy, may_fail), "details": shown}
    down = any(component["status"] == DOWN for component in components.values())
    return {"status": DOWN if down else UP, "components": components}


def _breaker(breaker: CircuitBreaker, may_fail: bool) -> str:
    state = breaker.state
    return DOWN if may_fail and state is State.OPEN else WORDS.get(state, UNKNOWN)


def _limiter(limiter: RateLimiter, may_fail: bool) -> str:
    now = limiter.statistics()
    if now.available_permissions > 0 or not now.waiting:
        return UP
    if -now.available_permissions * limiter.period / limiter.limit > limiter.max_wait:
        return DOWN if may_fail else "RATE_LIMITED"
    return UNKNOWN


__all__ = ["health"]
