"""Retry: the same call again after a failure that may pass, within a budget and the request's deadline.

Waits are functions of the attempt that failed (1, 2, …) and of a random number, so they are tested without time.
Semantics follow `io.github.resilience4j.retry`; other than there, a `Rejected` is not retried.

Three hops of three attempts each must not become 27 calls: a request that says it is somebody's repetition
(`x-retry-attempt`) isn't repeated further down, and an error that says so (`do_not_retry`) isn't repeated at all.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ParamSpec, TypeVar

from backstay.clock import SYSTEM, Clock
from backstay.metrics import Count
from backstay.resilience import events
from backstay.resilience.ambient import Ambient
from backstay.resilience.budget import Budget
from backstay.resilience.config import Kinds, Seconds, check, in_seconds, kinds, not_negative, whole
from backstay.resilience.deadline import remaining
from backstay.resilience.durations import duration
from backstay.resilience.errors import MaxRetriesExceeded, Misused, Rejected
from backstay.resilience.foreign import ask
from backstay.resilience.policy import Call, Guarded, Plain, Policy, gives_awaitable, misused
from backstay.resilience.verdict import FROM_OUTSIDE, all_match, any_matches
from backstay.resilience.waits import fixed

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=events.Event)

HEADER = "x-retry-attempt"
"""Carries the number of the attempt, from the second on."""
STOP_HEADER = "x-do-not-retry"
"""On an answer: the server sheds load, so repeating the request anywhere makes it worse."""

DEFAULT_ATTEMPTS = 3
DEFAULT_WAIT = 0.5  # seconds
DEFAULT_MAX_WAIT = 30.0  # seconds that an error may ask to be waited for
MAX_DIGITS = 4  # of the number in a header
MAX_CHAIN = 50  # causes of an error that are looked at

_attempt: Ambient[int] = Ambient("backstay_retry_attempt")
_served: Ambient[int] = Ambient("backstay_served_attempt")


def current_attempt() -> int:
    """Return the number of the current attempt: of a `Retry` around it, or of the request that is being served."""
    return max(_attempt.get() or 1, _served.get() or 1)


def attempt_of(header: bytes | None) -> int:
    """Return the number of the attempt in a request's header; 1 without a header, 2 for a malformed one."""
    if header is None:
        return 1
    text = header.strip()
    return int(text) if text.isdigit() and len(text) <= MAX_DIGITS else 2


def repeated_request(attempt: int | None = 2) -> AbstractContextManager[None]:
    """With `attempt` over 1, what is done inside serves a request that is a repetition already: nothing is retried.

    None takes the mark away. A task made inside has it until this block ends.
    """
    return _served.holding(attempt)


@contextmanager
def own_attempts() -> Iterator[None]:
    """Run the block as no attempt of an outer `Retry`, and as no part of a repeated request."""
    with _attempt.holding(None), _served.holding(None):
        yield


@dataclass(frozen=True, slots=True)
class RetryStatistics:
    """Calls by outcome, as Resilience4j counts them, and how often the budget allowed no other attempt."""

    successful_without_retry: Count
    successful_with_retry: Count
    failed_without_retry: Count
    failed_with_retry: Count
    retries_total: int = 0
    budget_exhausted_total: int = 0


class Retry(Policy):
    """Makes a call up to `attempts` times.

    wait: seconds between attempts, or a function of the attempt that failed (`exponential(0.1)`); negative means stop.
    wait_for: the same as a function of the attempt and of its error or result; it wins over `wait`.
    on: exceptions that are worth another attempt; `ignore` wins over it. A `Rejected` is never retried. A group is
    worth it if each of its members is.
    on_if: the same by predicate, beside `on`.
    retry_result: whether a result should be retried; after the last attempt it is returned, or `MaxRetriesExceeded`
    raised when `fail_after` is set.
    budget: a `Budget` shared by the callers of one dependency; when it is spent, the call's own error is raised.
    max_wait: an error or result with an attribute `retry_after` (seconds, `timedelta` or HTTP date) is waited for at
    least that long, but never longer than `max_wait` seconds because of it.
    A retry that couldn't begin before the request's deadline isn't waited for, nor is one in a task that is being
    cancelled. A function of these that raises is logged and decides nothing: the call's own outcome reaches the caller.
    """

    def __init__(
        self,
        attempts: int = DEFAULT_ATTEMPTS,
        *,
        name: str = "retry",
        wait: Seconds | Callable[[int], Seconds] = DEFAULT_WAIT,
        wait_for: Callable[[int, Any], Seconds] | None = None,
        max_wait: Seconds = DEFAULT_MAX_WAIT,
        on: type[BaseException] | Kinds = (Exception,),
        ignore: type[BaseException] | Kinds = (),
        on_if: Callable[[Any], bool] | None = None,
        retry_result: Callable[[Any], bool] | None = None,
        fail_after: bool = False,
        budget: Budget | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._on = kinds(on)
        never = [kind for kind in self._on if any(issubclass(each, kind) for each in FROM_OUTSIDE)]
        check(
            f"Retry '{name}'",
            (whole(attempts, 1), f"attempts: {attempts!r} is not a whole number of at least 1 (the first call counts)"),
            (
                callable(wait) or not_negative(in_seconds(wait)),
                f"wait: {wait!r} is not a function, nor a number of seconds of at least 0",
            ),
            (not_negative(in_seconds(max_wait)), f"max_wait: {max_wait!r} is not a number of seconds of at least 0"),
            (not never, f"on: {never} would repeat a call that was cancelled or interrupted"),
        )
        self.name = name
        self.attempts = attempts
        self._wait = wait if callable(wait) else fixed(wait)
        self._wait_for = wait_for
        self._max_wait = in_seconds(max_wait)
        self._on_if = on_if
        self._ignore = (*kinds(ignore), Rejected, Misused)
        self.retry_result = retry_result
        self._fail_after = fail_after
        self.budget = budget
        self.clock = clock
        self._events = events.Publisher()
        self.successful = 0  # at the first attempt
        self._repaired = self._failed = self._exhausted = self._retries = self._unbudgeted = 0

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard a coroutine function with these attempts."""
        sleep, judge, budget = self.clock.sleep, self.retry_result, self.budget

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if budget is not None:
                budget.call()
            number = 1
            while True:
                try:
                    if number == 1:
                        result = await (call(*args, **kwargs) if kwargs else call(*args))  # type: ignore[call-arg]  # an empty ** is slow
                        if judge is None:
                            self.successful += 1
                            return result
                    else:
                        with _attempt.holding(number):
                            result = await call(*args, **kwargs)
                except BaseException as error:  # noqa: BLE001 - raised again unless retried
                    wait = self.after_error(number, error, final=_is_cancelled(error))
                else:
                    if (again := self.after_result(number, result)) is None:
                        return result
                    wait = again
                number += 1
                await sleep(wait)

        return guarded

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """Guard a plain function; waiting blocks its thread."""
        if self.budget is not None:
            self.budget.make_thread_safe()

        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if self.budget is not None:
                self.budget.call()
            number = 1
            while True:
                try:
                    if number == 1:
                        result = call(*args, **kwargs)
                    else:
                        with _attempt.holding(number):
                            result = call(*args, **kwargs)
                    if gives_awaitable(result):
                        raise misused(call)
                except BaseException as error:  # noqa: BLE001 - raised again unless retried
                    wait = self.after_error(number, error)
                else:
                    if (again := self.after_result(number, result)) is None:
                        return result
                    wait = again
                number += 1
                self.clock.wait(wait)

        return guarded

    # -- the one loop's decisions ---------------------------------------------------------------------------------

    def after_error(self, attempt: int, error: BaseException, *, final: bool = False) -> float:
        """Return the seconds until the next attempt, or raise `error` if there is none. Called while it is handled.

        final: there can't be another attempt.
        """
        if isinstance(error, FROM_OUTSIDE):
            raise error
        if not self._is_worth_it(error):
            if isinstance(error, Exception):
                self._failed += 1
                self._events.emit(events.RetryIgnored, self.name, error=error)
            raise error
        wait = None if final else self._wait_before(attempt, error)
        if wait is None:
            self._exhausted += 1
            self._events.emit(events.RetriesExhausted, self.name, attempts=attempt, error=error)
            raise error
        if not self._allows(attempt, error):
            error.add_note(f"Retry '{self.name}' has no budget left for another attempt")
            raise error
        self._retrying(attempt, wait, error)
        return wait

    def after_result(self, attempt: int, result: object) -> float | None:
        """Return the seconds until the next attempt, or None when `result` is the answer."""
        judge = self.retry_result
        if judge is None or not ask(judge, f"retry_result of Retry '{self.name}'", False, result):
            self._succeeded(attempt)
            return None
        wait = self._wait_before(attempt, result)
        if wait is not None and self._allows(attempt, None):
            self._retrying(attempt, wait, None)
            return wait
        self._exhausted += 1
        self._events.emit(events.RetriesExhausted, self.name, attempts=attempt, error=None)
        if self._fail_after:
            raise MaxRetriesExceeded(f"Retry '{self.name}' has exhausted all attempts ({attempt})")
        return None

    def _is_worth_it(self, error: BaseException) -> bool:
        if any_matches(error, (*self._ignore, *FROM_OUTSIDE)):
            return False
        if all_match(error, self._on):
            return True
        on_if = self._on_if
        if on_if is None or not isinstance(error, Exception):
            return False
        return bool(ask(on_if, f"on_if of Retry '{self.name}'", False, error, about=error))

    def _wait_before(self, attempt: int, outcome: object) -> float | None:
        """Return the seconds to wait; None if there is no other attempt, or no time for it."""
        if attempt >= self.attempts or (_served.get() or 1) > 1 or _attribute(outcome, "do_not_retry") is True:
            return None
        if self._wait_for is not None:
            told = ask(self._wait_for, f"wait_for of Retry '{self.name}'", None, attempt, outcome, about=outcome)
        else:
            told = ask(self._wait, f"wait of Retry '{self.name}'", None, attempt, about=outcome)
        wait = duration(told)
        if wait is None or wait < 0:
            return None
        wait = max(wait, min(self._max_wait, self._asked_for(outcome)))
        left = remaining()
        return None if left is not None and left <= wait else wait

    def _asked_for(self, outcome: object) -> float:
        """Return the seconds of the outcome's `retry_after`; 0.0 if it has none, or a malformed one."""
        asked = _attribute(outcome, "retry_after")
        if isinstance(asked, str):
            asked = float(asked) if asked.strip().isdecimal() else _until(asked, self.clock.now())
        return max(0.0, duration(asked) or 0.0)

    def _allows(self, attempt: int, error: BaseException | None) -> bool:
        if self.budget is None or self.budget.allow():
            return True
        self._unbudgeted += 1
        if error is not None:
            self._exhausted += 1
        self._events.emit(events.BudgetSpent, self.name, attempt=attempt, error=error)
        return False

    def _retrying(self, attempt: int, wait: float, error: BaseException | None) -> None:
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
        """Return the calls so far by outcome."""
        return RetryStatistics(
            self.successful, self._repaired, self._failed, self._exhausted, self._retries, self._unbudgeted
        )

    def __repr__(self) -> str:
        return f"Retry({self.attempts}, name={self.name!r})"


def _is_cancelled(error: BaseException) -> bool:
    """Return whether the call made this error of a cancellation of its task that still holds: no reason to go on."""
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return False
    seen: BaseException | None = error
    for _ in range(MAX_CHAIN):
        if seen is None or isinstance(seen, asyncio.CancelledError):
            break
        seen = seen.__cause__ or seen.__context__
    return isinstance(seen, asyncio.CancelledError)


def _attribute(outcome: object, name: str) -> object:
    """Return an attribute of a foreign object; None if it has none, or reading it fails."""
    return ask(getattr, f"{name} of {type(outcome).__name__}", None, outcome, name, None)


def _until(date: str, now: datetime) -> float:
    """Return the seconds from `now` until an HTTP date; 0.0 for a malformed one."""
    try:
        moment = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return 0.0
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()


__all__ = [
    "HEADER",
    "STOP_HEADER",
    "Retry",
    "RetryStatistics",
    "attempt_of",
    "current_attempt",
    "repeated_request",
]
