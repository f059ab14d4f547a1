"""Time limiter: a call ends after some seconds, or when the request's deadline passes, whichever is first."""

import asyncio
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from backstay.errors import ConfigError
from backstay.resilience.deadline import clamp
from backstay.resilience.policy import Call, Guarded, Policy

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_TIMEOUT = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class TimeLimiterStatistics:
    """How calls ended."""

    successful: int
    failed: int
    timeout: int


class TimeLimiter(Policy):
    """Cancels a call after `timeout` seconds and raises `TimeoutError`.

    Put it inside the circuit breaker: only then the breaker sees the time-out as a failure.
    Raises `DeadlineExceeded` before the call when the request's deadline has passed already.
    """

    def __init__(self, timeout: float = DEFAULT_TIMEOUT, *, name: str = "time limiter") -> None:
        if timeout <= 0:
            raise ConfigError([f"TimeLimiter '{name}': timeout: {timeout} is not greater than 0 seconds"])
        self.name = name
        self.timeout = timeout
        self._counts = [0, 0, 0]

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard `call` with this limit."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            limit = asyncio.timeout(clamp(self.timeout))
            try:
                async with limit:
                    result = await call(*args, **kwargs)
            except TimeoutError as error:
                if not limit.expired():
                    self._counts[1] += 1
                    raise
                self._counts[2] += 1
                raise TimeoutError(f"TimeLimiter '{self.name}' recorded a timeout exception.") from error
            except Exception:
                self._counts[1] += 1
                raise
            self._counts[0] += 1
            return result

        return guarded

    def statistics(self) -> TimeLimiterStatistics:
        """How calls ended so far."""
        return TimeLimiterStatistics(*self._counts)

    def __repr__(self) -> str:
        return f"TimeLimiter({self.timeout:g})"


__all__ = ["TimeLimiter", "TimeLimiterStatistics"]
