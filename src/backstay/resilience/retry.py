"""Retry: the same call again after a failure that may pass, within a budget and the request's deadline.

Waits are functions of the attempt that failed (1, 2, …) and of a random number, so they are tested without time.
Semantics follow `io.github.resilience4j.retry`; other than there, a `Rejected` is not retried unless asked for.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from backstay.clock import SYSTEM, Clock
from backstay.errors import ConfigError
from backstay.resilience import events
from backstay.resilience.deadline import remaining
from backstay.resilience.errors import BudgetExhausted, MaxRetriesExceeded, Rejected
from backstay.resilience.policy import Call, Guarded, Policy

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=events.Event)

DEFAULT_ATTEMPTS = 3
DEFAULT_WAIT = 0.5  # seconds

Wait = Callable[[int], float]


def fixed(seconds: float) -> Wait:
    """The same wait each time."""
    return lambda _attempt: seconds


def exponential(
    initial: float, *, multiplier: float = 2.0, cap: float = 30.0, jitter: float = 0.5, rng: random.Random | None = None
) -> Wait:
    """Waits that grow by `multiplier` up to `cap` seconds, each moved at random by up to ± `jitter` of itself."""
    problems = [
        text
        for fine, text in (
            (initial >= 0, f"initial: {initial} is negative"),
            (multiplier >= 1, f"multiplier: {multiplier} is less than 1"),
            (0 <= jitter <= 1, f"jitter: {jitter} is not in [0, 1]"),
            (cap >= initial, f"cap: {cap} is less than initial"),
        )
        if not fine
    ]
    if problems:
        raise ConfigError(problems)
    chance = rng or random

    def wait(attempt: int) -> float:
        base = min(cap, initial * multiplier ** min(attempt - 1, 64))
        return base * (1 + jitter * chance.uniform(-1.0, 1.0)) if jitter else base

    return wait


class Budget:
    """At most `ratio` retries for each first call, plus `minimum` a second, over the last ten seconds.

    Shared by all retries of one dependency, it keeps them from multiplying its load when it is down.
    """

    WINDOW = 10.0  # seconds

    def __init__(self, ratio: float = 0.1, *, minimum: float = 1.0, clock: Clock = SYSTEM) -> None:
        if not 0 <= ratio <= 1 or minimum < 0:
            raise ConfigError([f"Budget: ratio {ratio} must be in [0, 1] and minimum {minimum} not negative"])
        self.ratio = ratio
        self.minimum = minimum
        self._now = clock.monotonic
        self._buckets = [[0, 0] for _ in range(int(self.WINDOW))]
        self._second = int(self._now())

    def call(self) -> None:
        """Count a first call."""
        self._bucket()[0] += 1

    def allow(self) -> bool:
        """Take one retry out of the budget, if there is one left."""
        bucket = self._bucket()
        calls = sum(entry[0] for entry in self._buckets)
        retries = sum(entry[1] for entry in self._buckets)
        if retries + 1 > calls * self.ratio + self.minimum * self.WINDOW:
            return False
        bucket[1] += 1
        return True

    def _bucket(self) -> list[int]:
        second, size = int(self._now()), len(self._buckets)
        for passed in range(min(second - self._second, size)):
            self._buckets[(self._second + 1 + passed) % size] = [0, 0]
        self._second = max(self._second, second)
        return self._buckets[self._second % size]

    def __repr__(self) -> str:
        return f"Budget({self.ratio:g}, minimum={self.minimum:g})"


@dataclass(frozen=True, slots=True)
class RetryStatistics:
    """How calls ended, as Resilience4j counts them."""

    successful_without_retry: int
    successful_with_retry: int
    failed_without_retry: int
    failed_with_retry: int


class Retry(Policy):
    """Makes a call up to `attempts` times.

    wait: seconds between attempts, or a function of the attempt that failed (`exponential(0.1)`).
    on: exceptions that are worth another attempt; `ignore` wins over it. A `Rejected` is never retried.
    retry_result: tells of a result that it should be retried; after the last attempt it is returned,
    or `MaxRetriesExceeded` raised when `fail_after` is set.
    budget: a `Budget` shared by the callers of one dependency; when it is spent, the first error is raised.
    A retry that couldn't begin before the request's deadline isn't waited for.
    """

    def __init__(
        self,
        attempts: int = DEFAULT_ATTEMPTS,
        *,
        name: str = "retry",
        wait: float | Wait = DEFAULT_WAIT,
        on: tuple[type[BaseException], ...] = (Exception,),
        ignore: tuple[type[BaseException], ...] = (),
        retry_result: Callable[[Any], bool] | None = None,
        fail_after: bool = False,
        budget: Budget | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        if attempts < 1:
            raise ConfigError([f"Retry '{name}': attempts: {attempts} is less than 1 (the first call counts)"])
        if isinstance(wait, (int, float)) and wait < 0:
            raise ConfigError([f"Retry '{name}': wait: {wait} is negative"])
        self.name = name
        self.attempts = attempts
        self._wait = wait if callable(wait) else fixed(float(wait))
        self._on = on
        self._ignore = (*ignore, Rejected)
        self._retry_result = retry_result
        self._fail_after = fail_after
        self.budget = budget
        self._clock = clock
        self._events = events.Publisher()
        self._counts = [0, 0, 0, 0]

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard `call` with these attempts."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if self.budget is not None:
                self.budget.call()
            attempt = 1
            while True:
                try:
                    result = await call(*args, **kwargs)
                except Exception as error:  # noqa: BLE001 - raised again unless retried
                    wait = self._next_wait(attempt, error)
                else:
                    if self._retry_result is None or not self._retry_result(result):
                        self._counts[attempt > 1] += 1
                        return result
                    if attempt >= self.attempts:
                        return self._exhausted(result, attempt)
                    wait = self._wait(attempt)
                    self._events.emit(events.Retrying, self.name, attempt=attempt, wait=wait, error=None)
                await self._clock.sleep(wait)
                attempt += 1

        return guarded

    def _next_wait(self, attempt: int, error: Exception) -> float:
        """The seconds until the next attempt; raises `error` when there is none. Called while it is handled."""
        if not isinstance(error, self._on) or isinstance(error, self._ignore):
            self._counts[2 + (attempt > 1)] += 1
            raise error
        wait = self._wait(attempt)
        left = remaining()
        if attempt >= self.attempts or wait < 0 or (left is not None and left <= wait):
            self._counts[3] += 1
            self._events.emit(events.RetriesExhausted, self.name, attempts=attempt, error=error)
            raise error
        if self.budget is not None and not self.budget.allow():
            self._counts[3] += 1
            raise BudgetExhausted(self.name) from error
        self._events.emit(events.Retrying, self.name, attempt=attempt, wait=wait, error=error)
        return max(wait, getattr(error, "retry_after", 0.0) or 0.0)

    def _exhausted(self, result: R, attempts: int) -> R:
        self._counts[3] += 1
        self._events.emit(events.RetriesExhausted, self.name, attempts=attempts, error=None)
        if self._fail_after:
            raise MaxRetriesExceeded(f"Retry '{self.name}' has exhausted all attempts ({attempts})")
        return result

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type; returns a function that stops it."""
        return self._events.on(event, listener)

    def statistics(self) -> RetryStatistics:
        """How calls ended so far."""
        return RetryStatistics(*self._counts)

    def __repr__(self) -> str:
        return f"Retry({self.attempts}, name={self.name!r})"


__all__ = ["Budget", "Retry", "RetryStatistics", "exponential", "fixed"]
