"""Retry: the same call again after a failure that may pass, within a budget and the request's deadline.

Waits are functions of the attempt that failed (1, 2, …) and of a random number, so they are tested without time.
Semantics follow `io.github.resilience4j.retry`; other than there, a `Rejected` is not retried.

Three hops of three attempts each must not become 27 calls: a request that says it is somebody's repetition
(`x-retry-attempt`) isn't repeated further down, and an error that says so (`do_not_retry`) isn't repeated at all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from backstay.clock import SYSTEM, Clock
from backstay.resilience import events
from backstay.resilience.budget import Budget
from backstay.resilience.config import Kinds, Seconds, check, in_seconds, kinds, whole, within
from backstay.resilience.deadline import remaining
from backstay.resilience.errors import BudgetExhausted, MaxRetriesExceeded, Rejected
from backstay.resilience.exact import exact
from backstay.resilience.policy import Call, Guarded, Plain, Policy
from backstay.resilience.waits import Wait, fixed

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=events.Event)

HEADER = "x-retry-attempt"
"""Carries the number of the attempt, from the second on."""
STOP_HEADER = "x-do-not-retry"
"""On an answer: the server sheds load, so repeating the request anywhere makes it worse."""

DEFAULT_ATTEMPTS = 3
DEFAULT_WAIT = 0.5  # seconds
MAX_DIGITS = 4  # of the number in a header
NO_MORE = -1.0  # the wait after a result that is the answer

_attempt: ContextVar[int] = ContextVar("backstay_retry_attempt", default=1)
_served: ContextVar[int] = ContextVar("backstay_served_attempt", default=1)


def current_attempt() -> int:
    """The number of the attempt that runs in this context: of a `Retry` around it, or of the request that it serves."""
    return max(_attempt.get(), _served.get())


def attempt_of(header: bytes | None) -> int:
    """The number of the attempt that a request says it is; 1 without a header, 2 for one that makes no sense."""
    if header is None:
        return 1
    text = header.strip()
    return int(text) if text.isdigit() and len(text) <= MAX_DIGITS else 2


@contextmanager
def repeated_request(attempt: int = 2) -> Iterator[None]:
    """With `attempt` over 1, what is done inside serves a request that somebody repeats already: nothing is retried."""
    token = _served.set(attempt)
    try:
        yield
    finally:
        _served.reset(token)


@dataclass(frozen=True, slots=True)
class RetryStatistics:
    """How calls ended, as Resilience4j counts them; and how often the budget allowed no other attempt."""

    successful_without_retry: int
    successful_with_retry: int
    failed_without_retry: int
    failed_with_retry: int
    retries_total: int = 0
    budget_exhausted_total: int = 0


class Retry(Policy):
    """Makes a call up to `attempts` times.

    wait: seconds between attempts, or a function of the attempt that failed (`exponential(0.1)`); negative means stop.
    on: exceptions that are worth another attempt; `ignore` wins over it. A `Rejected` is never retried.
    on_if: the same by predicate, beside `on`.
    retry_result: tells of a result that it should be retried; after the last attempt it is returned,
    or `MaxRetriesExceeded` raised when `fail_after` is set.
    budget: a `Budget` shared by the callers of one dependency; when it is spent, `BudgetExhausted` is raised.
    A retry that couldn't begin before the request's deadline isn't waited for. An error or result with an attribute
    `retry_after` (seconds) is waited for at least that long.
    """

    def __init__(
        self,
        attempts: int = DEFAULT_ATTEMPTS,
        *,
        name: str = "retry",
        wait: Seconds | Wait = DEFAULT_WAIT,
        on: type[BaseException] | Kinds = (Exception,),
        ignore: type[BaseException] | Kinds = (),
        on_if: Callable[[Any], bool] | None = None,
        retry_result: Callable[[Any], bool] | None = None,
        fail_after: bool = False,
        budget: Budget | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        check(
            f"Retry '{name}'",
            (whole(attempts, 1), f"attempts: {attempts!r} is not a whole number of at least 1 (the first call counts)"),
            (
                callable(wait) or in_seconds(wait) == 0 or within(in_seconds(wait), 0),
                f"wait: {wait!r} is not a function, nor a number of seconds of at least 0",
            ),
        )
        self.name = name
        self.attempts = attempts
        self._wait = wait if callable(wait) else fixed(wait)
        self._on = kinds(on)
        self._on_if = on_if
        self._ignore = (*kinds(ignore), Rejected)
        self.retry_result = retry_result
        self._fail_after = fail_after
        self.budget = budget
        self.clock = clock
        self._events = events.Publisher()
        self.successful = 0  # at the first attempt
        self._repaired = self._failed = self._exhausted = self._retries = self._unbudgeted = 0

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard a coroutine function with these attempts."""
        guarded: Guarded[P, R] = exact(_around, call, self)
        return guarded

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """Guard a plain function; waiting blocks its thread."""
        if self.budget is not None:
            self.budget.share()
        guarded: Plain[P, R] = exact(_around_plain, call, self)
        return guarded

    async def again(self, wait: float, call: Call[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The attempts from the second on."""
        token = _attempt.set(1)
        try:
            for attempt in range(2, self.attempts + 1):
                await self.clock.sleep(wait)
                _attempt.set(attempt)
                try:
                    result = await call(*args, **kwargs)
                except Exception as error:  # noqa: BLE001 - raised again unless retried
                    wait = self.after_error(attempt, error)
                else:
                    if (wait := self.after_result(attempt, result)) < 0:
                        return result
            raise AssertionError("the last attempt returns or raises")
        finally:
            _attempt.reset(token)

    def again_plain(self, wait: float, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The same without an event loop."""
        token = _attempt.set(1)
        try:
            for attempt in range(2, self.attempts + 1):
                self.clock.wait(wait)
                _attempt.set(attempt)
                try:
                    result = call(*args, **kwargs)
                except Exception as error:  # noqa: BLE001 - raised again unless retried
                    wait = self.after_error(attempt, error)
                else:
                    if (wait := self.after_result(attempt, result)) < 0:
                        return result
            raise AssertionError("the last attempt returns or raises")
        finally:
            _attempt.reset(token)

    def after_error(self, attempt: int, error: Exception) -> float:
        """The seconds until the next attempt; raises `error` when there is none. Called while it is handled."""
        if isinstance(error, self._ignore) or not self._is_worth_it(error):
            self._failed += 1
            self._events.emit(events.RetryIgnored, self.name, error=error)
            raise error
        wait = self._wait_before(attempt, error)
        if wait < 0:
            self._exhausted += 1
            self._events.emit(events.RetriesExhausted, self.name, attempts=attempt, error=error)
            raise error
        if not self._allows(attempt, error):
            raise BudgetExhausted(self.name) from error
        self._retrying(attempt, wait, error)
        return wait

    def after_result(self, attempt: int, result: object) -> float:
        """The seconds until the next attempt, or a negative number when `result` is the answer."""
        if self.retry_result is None or not self.retry_result(result):
            self._succeeded(attempt)
            return NO_MORE
        wait = self._wait_before(attempt, result)
        if wait >= 0 and self._allows(attempt, None):
            self._retrying(attempt, wait, None)
            return wait
        self._events.emit(events.RetriesExhausted, self.name, attempts=attempt, error=None)
        self._exhausted += 1
        if self._fail_after:
            raise MaxRetriesExceeded(f"Retry '{self.name}' has exhausted all attempts ({attempt})")
        return NO_MORE

    def _is_worth_it(self, error: Exception) -> bool:
        return isinstance(error, self._on) or (self._on_if is not None and self._on_if(error))

    def _wait_before(self, attempt: int, outcome: object) -> float:
        """The seconds to wait; negative if there is no other attempt, or no time for it."""
        if attempt >= self.attempts or _served.get() > 1 or getattr(outcome, "do_not_retry", False):
            return NO_MORE
        wait = self._wait(attempt)
        if wait < 0:
            return NO_MORE
        wait = max(wait, float(getattr(outcome, "retry_after", None) or 0.0))
        left = remaining()
        return NO_MORE if left is not None and left <= wait else wait

    def _allows(self, attempt: int, error: Exception | None) -> bool:
        if self.budget is None or self.budget.allow():
            return True
        self._unbudgeted += 1
        if error is not None:
            self._exhausted += 1
        self._events.emit(events.BudgetSpent, self.name, attempt=attempt, error=error)
        return False

    def _retrying(self, attempt: int, wait: float, error: Exception | None) -> None:
        self._retries += 1
        self._events.emit(events.Retrying, self.name, attempt=attempt, wait=wait, error=error)

    def _succeeded(self, attempt: int) -> None:
        if attempt == 1:
            self.successful += 1
        else:
            self._repaired += 1
            self._events.emit(events.RetrySucceeded, self.name, attempts=attempt)

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type; returns a function that stops it."""
        return self._events.on(event, listener)

    def statistics(self) -> RetryStatistics:
        """How calls ended so far."""
        return RetryStatistics(
            self.successful, self._repaired, self._failed, self._exhausted, self._retries, self._unbudgeted
        )

    def __repr__(self) -> str:
        return f"Retry({self.attempts}, name={self.name!r})"


def _around(call: Call[P, R], retry: Retry) -> Guarded[P, R]:
    budget, judge = retry.budget, retry.retry_result

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if budget is not None:
            budget.call()
        try:
            result = await call(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - raised again unless retried
            wait = retry.after_error(1, error)
        else:
            if judge is None:
                retry.successful += 1
                return result
            if (wait := retry.after_result(1, result)) < 0:
                return result
        return await retry.again(wait, call, *args, **kwargs)

    return guarded


def _around_plain(call: Callable[P, R], retry: Retry) -> Plain[P, R]:
    budget, judge = retry.budget, retry.retry_result

    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if budget is not None:
            budget.call()
        try:
            result = call(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - raised again unless retried
            wait = retry.after_error(1, error)
        else:
            if judge is None:
                retry.successful += 1
                return result
            if (wait := retry.after_result(1, result)) < 0:
                return result
        return retry.again_plain(wait, call, *args, **kwargs)

    return guarded


__all__ = [
    "HEADER",
    "STOP_HEADER",
    "Retry",
    "RetryStatistics",
    "attempt_of",
    "current_attempt",
    "repeated_request",
]
