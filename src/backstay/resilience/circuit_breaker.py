"""The circuit breaker: a synchronous state machine and a thin asynchronous shell.

Invariants
- A permit carries the era of the state that gave it. A result of an older era never decides a newer one.
- A probe's permit ends exactly once: by a result, or given back (cancelled, ignored, refused further inside).
- Half-open can't wedge: with `probes(max_wait=…)` an undecided visit ends in OPEN after that time.
- Time is monotonic; no lock is held across an await; a listener's failure never reaches the caller.

Semantics follow `io.github.resilience4j.circuitbreaker.internal.CircuitBreakerStateMachine`; where they differ,
the eras above are why.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from backstay.clock import SYSTEM, Clock
from backstay.errors import ConfigError
from backstay.resilience import events
from backstay.resilience.errors import CallNotPermitted, IllegalTransition, Rejected
from backstay.resilience.events import State
from backstay.resilience.policy import Call, Guarded, Policy
from backstay.resilience.windows import FAILED, SLOW, CountWindow, Window, WindowSize, last, open_window

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=events.Event)

NO_RATE = -1.0  # fewer calls than needed for a verdict
FORBIDDEN = {
    (State.CLOSED, State.HALF_OPEN),
    (State.METRICS_ONLY, State.OPEN),
    (State.METRICS_ONLY, State.HALF_OPEN),
}
PASSING = (State.CLOSED, State.DISABLED, State.METRICS_ONLY)


@dataclass(frozen=True, slots=True)
class Slow:
    """Calls longer than `seconds` are slow; at `rate` percent of them the breaker opens."""

    seconds: float = 60.0
    rate: float = 100.0


@dataclass(frozen=True, slots=True)
class Probes:
    """A half-open visit lets `calls` probes pass; undecided after `max_wait` seconds (0 = never) it opens again."""

    calls: int = 10
    max_wait: float = 0.0


def over(seconds: float, *, rate: float = 100.0) -> Slow:
    """Slow means longer than `seconds`; `rate` is the percentage of slow calls that opens the breaker."""
    return Slow(seconds, rate)


def probes(calls: int, *, max_wait: float = 0.0) -> Probes:
    """How many calls a half-open breaker lets pass, and how long it waits for their outcome."""
    return Probes(calls, max_wait)


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """A snapshot. Rates are percent, −1.0 while there are too few calls for a verdict."""

    state: State
    failure_rate: float
    slow_call_rate: float
    buffered_calls: int
    failed_calls: int
    slow_calls: int
    slow_failed_calls: int
    not_permitted_calls: int  # since the current state began
    succeeded_total: int
    failed_total: int
    ignored_total: int
    not_permitted_total: int


class CircuitBreaker(Policy):
    """Stops calling a dependency that fails or is slow, and tries it again after a while.

    name: shown in events, metrics and rejections.
    failure_rate: percent of failed calls in the window at which it opens, in (0, 100].
    slow: what counts as a slow call, and the percentage of them at which it opens: `over(2.0, rate=50)`.
    window: `last(100)` calls or `last(seconds=60)`.
    min_calls: calls needed before any verdict; never more than a window of calls holds.
    wait_open: seconds that it stays open.
    half_open: `probes(3)`: calls that may try afterwards, `max_wait` seconds long.
    record: exceptions that count as failures (default: every `Exception`); others count as successes.
    ignore: exceptions that count as nothing; a `Rejected` of an inner layer is always one of them.
    fail_result: tells of a result whether it counts as a failure (it is returned all the same).
    """

    def __init__(
        self,
        name: str,
        *,
        failure_rate: float = 50.0,
        slow: Slow = Slow(),
        window: WindowSize = WindowSize(calls=100),  # noqa: B008 - frozen
        min_calls: int = 100,
        wait_open: float = 60.0,
        half_open: Probes = Probes(),
        record: tuple[type[BaseException], ...] = (Exception,),
        ignore: tuple[type[BaseException], ...] = (),
        fail_result: Callable[[Any], bool] | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        _validate(name, failure_rate, slow, min_calls, wait_open, half_open)
        self.name = name
        self.failure_rate = failure_rate
        self.slow = slow
        self.window = window
        self.min_calls = min_calls if window.calls is None else min(min_calls, window.calls)
        self.wait_open = wait_open
        self.half_open = half_open
        self._record = record
        self._ignore = (*ignore, Rejected)
        self._fail_result = fail_result
        self._now = clock.monotonic
        self._events = events.Publisher()
        self._succeeded = self._failed = self._ignored = self._refused = 0
        self._exceeded: set[type[events.Event]] = set()
        self._era = 0
        self._enter(State.CLOSED, open_window(window, self._now()))

    # -- the state machine ------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state; OPEN turns to HALF_OPEN only by a call that is allowed to try (as in Resilience4j)."""
        return self._state

    def acquire(self) -> int:
        """Ask for a permit: the current era, to be handed to `settle` or `release`. Raises `CallNotPermitted`."""
        if self._state not in PASSING:
            self._admit(self._now())
        return self._era

    def settle(self, era: int, duration: float, *, failed: bool) -> None:
        """The call ended after `duration` seconds; it counts if its era is still the current one."""
        if failed:
            self._failed += 1
        else:
            self._succeeded += 1
        if era != self._era or self._state is State.DISABLED:
            return
        slow = duration > self.slow.seconds
        if not (failed or slow) and self._state is State.CLOSED and self._window.clean:
            return  # a clean success into a full clean window changes nothing
        now = self._now()
        self._window.record((FAILED if failed else 0) | (SLOW if slow else 0), now)
        self._judge(now)

    def release(self, era: int) -> None:
        """The call said nothing about the dependency: give a probe's permit back."""
        if era == self._era and self._state is State.HALF_OPEN:
            self._permits += 1

    def _admit(self, now: float) -> None:
        if self._state is State.HALF_OPEN and self.half_open.max_wait and now > self._since + self.half_open.max_wait:
            self._go(State.OPEN, now)
        if self._state is State.OPEN and now > self._since + self.wait_open:
            self._go(State.HALF_OPEN, now)
        if self._state is State.HALF_OPEN and self._permits:
            self._permits -= 1
            return
        self._refused += 1
        self._not_permitted += 1
        self._events.emit(events.NotPermitted, self.name)
        raise CallNotPermitted(
            f"CircuitBreaker '{self.name}' is {self._state.value} and does not permit further calls",
            name=self.name,
            retry_after=self._retry_after(now),
        )

    def _retry_after(self, now: float) -> float:
        return max(0.0, self._since + self.wait_open - now) if self._state is State.OPEN else 0.0

    def _judge(self, now: float) -> None:
        window, state = self._window, self._state
        if window.total < self._needed:
            return
        failing = window.failed * 100.0 >= self.failure_rate * window.total
        slow = window.slow * 100.0 >= self.slow.rate * window.total
        if state is State.CLOSED or state is State.METRICS_ONLY:
            if failing:
                self._exceed(events.FailureRateExceeded, window.failed * 100.0 / window.total)
            if slow:
                self._exceed(events.SlowCallRateExceeded, window.slow * 100.0 / window.total)
            if (failing or slow) and state is State.CLOSED:
                self._go(State.OPEN, now)
        elif state is State.HALF_OPEN:
            self._go(State.OPEN if failing or slow else State.CLOSED, now)

    def _exceed(self, event: type[events.Event], rate: float) -> None:
        if event not in self._exceeded:  # at most once a stay, which only METRICS_ONLY can notice
            self._exceeded.add(event)
            self._events.emit(event, self.name, rate=rate)

    def _go(self, new: State, now: float) -> None:
        old = self._state
        if new is State.OPEN and old is State.CLOSED:
            window = self._window  # an open breaker shows the window that opened it
        elif new is State.HALF_OPEN:
            window = CountWindow(self.half_open.calls)
        else:
            window = open_window(self.window, now)
        self._enter(new, window)
        if old is not new:
            self._events.emit(events.StateTransition, self.name, from_state=old, to_state=new)

    def _enter(self, state: State, window: Window) -> None:
        self._state = state
        self._window = window
        self._since = self._now()
        self._era += 1  # what began before now is stale from here on
        self._permits = self.half_open.calls if state is State.HALF_OPEN else 0
        self._needed = min(self.min_calls, self.half_open.calls) if state is State.HALF_OPEN else self.min_calls
        self._not_permitted = 0
        self._exceeded.clear()

    # -- by hand ----------------------------------------------------------------------------------------------

    def transition_to(self, state: State) -> None:
        """Go to `state` by hand. Raises `IllegalTransition` for one that makes no sense, and changes nothing then."""
        if (self._state, state) in FORBIDDEN:
            raise IllegalTransition(f"CircuitBreaker '{self.name}' can't go from {self._state.value} to {state.value}")
        self._go(state, self._now())

    def reset(self) -> None:
        """A fresh closed state, whatever was before."""
        self._go(State.CLOSED, self._now())
        self._events.emit(events.BreakerReset, self.name)

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type; returns a function that stops it."""
        return self._events.on(event, listener)

    def statistics(self) -> BreakerStatistics:
        """A snapshot of state, rates and counts."""
        window = self._window
        window.advance(self._now())
        enough = window.total >= self._needed and self._state is not State.DISABLED
        return BreakerStatistics(
            state=self._state,
            failure_rate=window.failed * 100.0 / window.total if enough else NO_RATE,
            slow_call_rate=window.slow * 100.0 / window.total if enough else NO_RATE,
            buffered_calls=window.total,
            failed_calls=window.failed,
            slow_calls=window.slow,
            slow_failed_calls=window.slow_failed,
            not_permitted_calls=self._not_permitted,
            succeeded_total=self._succeeded,
            failed_total=self._failed,
            ignored_total=self._ignored,
            not_permitted_total=self._refused,
        )

    # -- around a coroutine function --------------------------------------------------------------------------

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard `call`: refuse it while open, count its outcome otherwise."""
        now = self._now

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            era = self.acquire()
            started = now()
            try:
                result = await call(*args, **kwargs)
            except BaseException as error:
                self._ended(era, now() - started, error)
                raise
            failed = self._fail_result is not None and result is not None and self._fail_result(result)
            self._finished(era, now() - started, failed)
            return result

        return guarded

    def __call__(self, function: Call[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
        """Decorate `function` with this breaker."""
        return super().__call__(function)

    def _ended(self, era: int, duration: float, error: BaseException) -> None:
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            self.release(era)  # ended from outside: no verdict
        elif isinstance(error, self._ignore):
            self._ignored += 1
            self.release(era)
            self._events.emit(events.CallIgnored, self.name, duration=duration, error=error)
        elif isinstance(error, self._record):
            self._events.emit(events.CallFailed, self.name, duration=duration, error=error)
            self.settle(era, duration, failed=True)
        elif isinstance(error, Exception):
            self._finished(era, duration, failed=False)
        else:
            self.release(era)

    def _finished(self, era: int, duration: float, failed: bool) -> None:
        if self._events.wants(events.CallSucceeded) and not failed:
            self._events.emit(events.CallSucceeded, self.name, duration=duration)
        self.settle(era, duration, failed=failed)

    def __repr__(self) -> str:
        return (
            f"CircuitBreaker({self.name!r}, failure_rate={self.failure_rate:g}, window={self.window}, "
            f"min_calls={self.min_calls}, wait_open={self.wait_open:g})"
        )


def circuit_breaker(name: str, **options: Any) -> CircuitBreaker:
    """A decorator with a breaker of its own: `@circuit_breaker("payments", failure_rate=50)`."""
    return CircuitBreaker(name, **options)


def _validate(name: str, failure_rate: float, slow: Slow, min_calls: int, wait_open: float, half_open: Probes) -> None:
    checks = (
        (0 < failure_rate <= 100, f"failure_rate: {failure_rate} is not a percentage in (0, 100]"),
        (0 < slow.rate <= 100, f"slow.rate: {slow.rate} is not a percentage in (0, 100]"),
        (slow.seconds > 0, f"slow.seconds: {slow.seconds} is not greater than 0"),
        (min_calls >= 1, f"min_calls: {min_calls} is less than 1"),
        (wait_open >= 0.001, f"wait_open: {wait_open} is shorter than 0.001 seconds"),
        (half_open.calls >= 1, f"half_open.calls: {half_open.calls} is less than 1"),
        (half_open.max_wait >= 0, f"half_open.max_wait: {half_open.max_wait} is negative"),
    )
    problems = [f"CircuitBreaker '{name}': {text}" for fine, text in checks if not fine]
    if problems:
        raise ConfigError(problems)


__all__ = ["BreakerStatistics", "CircuitBreaker", "Probes", "Slow", "circuit_breaker", "last", "over", "probes"]
