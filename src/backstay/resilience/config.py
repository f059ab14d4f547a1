"""Configurations of the policies: frozen, complete, and checked when built.

Defaults and meanings are Resilience4j's. Rates are percent, durations seconds (or `timedelta`). A mistake raises
`ConfigError` with the field, its value and what is allowed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

from backstay.errors import ConfigError
from backstay.resilience.durations import Seconds, duration, in_seconds
from backstay.resilience.events import State
from backstay.resilience.windows import WindowSize

Wait = Callable[[int], Seconds]
Kinds = tuple[type[BaseException], ...]
Predicate = Callable[[Any], bool]

ALL_ERRORS: Kinds = (Exception,)
LEAST_WAIT = 0.001  # seconds: Resilience4j waits in milliseconds


@dataclass(frozen=True, slots=True)
class Slow:
    """Calls longer than `seconds` are slow; at `rate` percent of them the breaker opens."""

    seconds: float = 60.0
    rate: float = 100.0


@dataclass(frozen=True, slots=True)
class Probes:
    """A half-open visit lets `calls` probes pass; undecided after `max_wait` seconds (0 = never) it goes to `then`."""

    calls: int = 10
    max_wait: float = 0.0
    then: State = State.OPEN


def over(seconds: Seconds, *, rate: float = 100.0) -> Slow:
    """Slow means longer than `seconds`; `rate` is the percentage of slow calls that opens the breaker."""
    return Slow(in_seconds(seconds), rate)


def probes(calls: int, *, max_wait: Seconds = 0.0, then: State = State.OPEN) -> Probes:
    """Configure HALF_OPEN: the number of permitted calls, the longest wait for their outcome, and what follows."""
    return Probes(calls, in_seconds(max_wait), then)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerConfig:
    """Configuration of a circuit breaker: what counts as a failure, when it opens, and how it probes.

    failure_rate: percent of failed calls at which it opens, in (0, 100].
    slow: what counts as slow, and the percentage of slow calls at which it opens.
    window: `last(100)` calls or `last(seconds=60)`.
    min_calls: calls needed before a verdict; a window of calls never needs more than it holds.
    wait_open: seconds that it stays open, or a function of how often it opened in a row (1, 2, …).
    half_open: how many calls may try afterwards, how long, and where an undecided visit ends.
    auto_half_open: leave OPEN when the wait is over, without a call that asks (at once where an event loop runs).
    record, ignore: exceptions that count as failures, and that count as nothing; ignore wins; all others are successes.
    record_if, ignore_if: the same by predicate.
    fail_result: tells of a result whether it counts as a failure (it is returned all the same).
    open_if: given a result or an error, the seconds to be open for at once, or None (a `Retry-After`, for example).
    initial_state: the state it begins in.
    parity: keep Resilience4j's own behaviour where it differs: late results count in whatever state they find, and a
    permit given back late is added to the probes.
    """

    failure_rate: float = 50.0
    slow: Slow = Slow()
    window: WindowSize = WindowSize(calls=100)  # noqa: RUF009 - frozen
    min_calls: int = 100
    wait_open: float | timedelta | Wait = 60.0
    half_open: Probes = Probes()
    auto_half_open: bool = False
    record: Kinds = ALL_ERRORS
    ignore: Kinds = ()
    record_if: Predicate | None = None
    ignore_if: Predicate | None = None
    fail_result: Predicate | None = None
    open_if: Callable[[Any], Seconds | None] | None = None
    initial_state: State = State.CLOSED
    parity: bool = False

    def __post_init__(self) -> None:
        wait = self.wait_open
        if isinstance(wait, timedelta):
            object.__setattr__(self, "wait_open", wait := wait.total_seconds())
        object.__setattr__(self, "record", kinds(self.record))
        object.__setattr__(self, "ignore", kinds(self.ignore))
        seconds, half = self.slow.seconds, self.half_open
        check(
            "circuit breaker",
            (within(self.failure_rate, 0, 100), f"failure_rate: {self.failure_rate!r} is not a percentage in (0, 100]"),
            (within(self.slow.rate, 0, 100), f"slow.rate: {self.slow.rate!r} is not a percentage in (0, 100]"),
            (within(seconds, 0), f"slow.seconds: {seconds!r} is not a number greater than 0"),
            (isinstance(self.window, WindowSize), f"window: {self.window!r}; write last(100) or last(seconds=60)"),
            (whole(self.min_calls, 1), f"min_calls: {self.min_calls!r} is not a whole number of at least 1"),
            (
                callable(wait) or (within(wait, 0) and wait >= LEAST_WAIT),
                f"wait_open: {wait!r} is not a function, nor a number of at least {LEAST_WAIT} seconds",
            ),
            (whole(half.calls, 1), f"half_open.calls: {half.calls!r} is not a whole number of at least 1"),
            (not_negative(half.max_wait), f"half_open.max_wait: {half.max_wait!r} is not 0 or more"),
            (
                half.then in (State.OPEN, State.CLOSED),
                f"half_open.then: {half.then!r} is not State.OPEN or State.CLOSED",
            ),
            (isinstance(self.initial_state, State), f"initial_state: {self.initial_state!r} is not a State"),
            *((_is_error(kind), f"record, ignore: {kind!r} is not an exception type") for kind in self._kinds()),
            *(
                (each is None or callable(each), f"{name}: {each!r} is not a function")
                for name, each in self._functions().items()
            ),
        )

    def _kinds(self) -> tuple[Any, ...]:
        return (*self.record, *self.ignore)

    def _functions(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("record_if", "ignore_if", "fail_result", "open_if")}

    @property
    def needed(self) -> int:
        """Calls before a verdict while closed (rule of Resilience4j: clamped in a window of calls only)."""
        return self.min_calls if self.window.calls is None else min(self.min_calls, self.window.calls)

    def wait(self, attempt: int) -> float:
        """Seconds to stay open at the `attempt`-th opening in a row; raises `ValueError` if the function gives none."""
        return opening(self.wait_open(attempt) if callable(self.wait_open) else self.wait_open)


class BreakerOptions(TypedDict, total=False):
    """The fields of `CircuitBreakerConfig` as keyword arguments."""

    failure_rate: float
    slow: Slow
    window: WindowSize
    min_calls: int
    wait_open: float | timedelta | Wait
    half_open: Probes
    auto_half_open: bool
    record: type[BaseException] | Kinds
    ignore: type[BaseException] | Kinds
    record_if: Predicate | None
    ignore_if: Predicate | None
    fail_result: Predicate | None
    open_if: Callable[[Any], Seconds | None] | None
    initial_state: State
    parity: bool


def opening(value: object) -> float:
    """Return a user's duration of an opening in seconds; raises `ValueError` for what isn't one."""
    seconds = duration(value)
    if seconds is None or seconds < 0:
        raise ValueError(f"{value!r} is not a number of seconds of at least 0, nor a timedelta")
    return seconds


def check(what: str, *facts: tuple[bool, str]) -> None:
    """Raise `ConfigError` naming each fact that doesn't hold."""
    problems = [f"{what}: {text}" for holds, text in facts if not holds]
    if problems:
        raise ConfigError(problems)


def within(value: object, above: float, most: float = float("inf")) -> bool:
    """Return whether `value` is a finite number greater than `above` and at most `most`; booleans are none."""
    return isinstance(value, int | float) and duration(value) is not None and above < value <= most


def not_negative(value: object) -> bool:
    """Return whether `value` is a finite number of at least 0."""
    return isinstance(value, int | float) and duration(value) is not None and value >= 0


def whole(value: object, least: int) -> bool:
    """Return whether `value` is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def kinds(value: type[BaseException] | Iterable[type[BaseException]]) -> Kinds:
    """One exception type or several, as a tuple."""
    return (value,) if isinstance(value, type) else tuple(value)


__all__ = [
    "BreakerOptions",
    "CircuitBreakerConfig",
    "Probes",
    "Seconds",
    "Slow",
    "check",
    "in_seconds",
    "kinds",
    "not_negative",
    "opening",
    "over",
    "probes",
    "within",
]
