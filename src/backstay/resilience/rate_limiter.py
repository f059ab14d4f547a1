"""Rate limiter: so many calls a period, counted in cycles from the limiter's creation.

Semantics follow `io.github.resilience4j.ratelimiter.internal.AtomicRateLimiter`, but a caller that can't be served
in time is refused at once instead of after its whole time-out, and a cancelled waiter gives its permission back.
"""

from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from backstay.clock import SYSTEM, Clock
from backstay.errors import ConfigError
from backstay.resilience.errors import RateLimited
from backstay.resilience.policy import Call, Guarded, Policy

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class RateLimiterStatistics:
    """Permissions left in this period (negative: reserved ahead), and how many were refused."""

    available_permissions: int
    rejected_total: int


class RateLimiter(Policy):
    """`limit` calls every `period` seconds; a caller waits at most `max_wait` seconds for its turn."""

    def __init__(
        self,
        limit: int,
        *,
        period: float = 1.0,
        max_wait: float = 0.0,
        name: str = "rate limiter",
        clock: Clock = SYSTEM,
    ) -> None:
        if limit < 1 or period <= 0 or max_wait < 0:
            raise ConfigError(
                [f"RateLimiter '{name}': limit {limit} must be ≥ 1, period {period} > 0, max_wait {max_wait} ≥ 0"]
            )
        self.name = name
        self.limit = limit
        self.period = period
        self.max_wait = max_wait
        self._clock = clock
        self._born = clock.monotonic()
        self._cycle = 0
        self._permits = limit
        self._rejected = 0

    def reserve(self, now: float) -> float | None:
        """Take a permission: the seconds to wait for it, or None when that is longer than `max_wait`."""
        cycle = int((now - self._born) / self.period)
        if cycle > self._cycle:
            self._permits = min(self._permits + (cycle - self._cycle) * self.limit, self.limit)
            self._cycle = cycle
        if self._permits > 0:
            self._permits -= 1
            return 0.0
        ahead = 1 + (-self._permits) // self.limit  # cycles until this permission exists
        wait = self._born + (self._cycle + ahead) * self.period - now
        if wait > self.max_wait:
            self._rejected += 1
            return None
        self._permits -= 1
        return wait

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard `call` with this rate."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            now = self._clock.monotonic()
            wait = self.reserve(now)
            if wait is None:
                next_period = self._born + (self._cycle + 1) * self.period
                raise RateLimited(self.name, max(0.0, next_period - now))
            if wait > 0:
                try:
                    await self._clock.sleep(wait)
                except BaseException:
                    self._permits += 1
                    raise
            return await call(*args, **kwargs)

        return guarded

    def statistics(self) -> RateLimiterStatistics:
        """A snapshot."""
        return RateLimiterStatistics(self._permits, self._rejected)

    def __repr__(self) -> str:
        return f"RateLimiter({self.limit}, period={self.period:g})"


__all__ = ["RateLimiter", "RateLimiterStatistics"]
