"""Configurations of the policies: frozen, complete, and checked when built.

Defaults and meanings are Resilience4j's. Rates are percent, durations seconds. A mistake raises `ConfigError` with the
field, its value and what is allowed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from backstay.errors import ConfigError
from backstay.resilience.windows import WindowSize

Wait = Callable[[int], float]
Kinds = tuple[type[BaseException], ...]
Predicate = Callable[[Any], bool]

ALL_ERRORS: Kinds = (Exception,)


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
    """How many calls a half-open breaker lets pass, and how many seconds it waits for their outcome."""
    return Probes(calls, max_wait)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerConfig:
    """What a circuit breaker counts, when it opens, and how it tries again.

    failure_rate: percent of failed calls at which it opens, in (0, 100].
    slow: what counts as slow, and the percentage of slow calls at which it opens.
    window: `last(100)` calls or `last(seconds=60)`.
    min_calls: calls needed before a verdict; a window of calls never needs more than it holds.
    wait_open: seconds that it stays open, or a function of how often it opened in a row (1, 2, …).
    half_open: how many calls may try afterwards, and how long.
    auto_half_open: leave OPEN when the wait is over, without a call that asks.
    record, ignore: exceptions that count as failures, and that count as nothing; ignore wins; all others are successes.
    record_if, ignore_if: the same by predicate.
    fail_result: tells of a result whether it counts as a failure (it is returned all the same).
    parity: keep Resilience4j's own behaviour where it differs: late results count in whatever state they find, and a
    permit given back late is added to the probes.
    """

    failure_rate: float = 50.0
    slow: Slow = Slow()
    window: WindowSize = WindowSize(calls=100)  # noqa: RUF009 - frozen
    min_calls: int = 100
    wait_open: float | Wait = 60.0
    half_open: Probes = Probes()
    auto_half_open: bool = False
    record: Kinds = ALL_ERRORS
    ignore: Kinds = ()
    record_if: Predicate | None = None
    ignore_if: Predicate | None = None
    fail_result: Predicate | None = None
    parity: bool = False

    def __post_init__(self) -> None:
        wait = self.wait_open
        check(
            "circuit breaker",
            (0 < self.failure_rate <= 100, f"failure_rate: {self.failure_rate} is not a percentage in (0, 100]"),
            (0 < self.slow.rate <= 100, f"slow.rate: {self.slow.rate} is not a percentage in (0, 100]"),
            (self.slow.seconds > 0, f"slow.seconds: {self.slow.seconds} is not greater than 0"),
            (self.min_calls >= 1, f"min_calls: {self.min_calls} is less than 1"),
            (callable(wait) or wait >= 0.001, f"wait_open: {wait} is shorter than 0.001 seconds"),
            (self.half_open.calls >= 1, f"half_open.calls: {self.half_open.calls} is less than 1"),
            (self.half_open.max_wait >= 0, f"half_open.max_wait: {self.half_open.max_wait} is negative"),
        )

    @property
    def needed(self) -> int:
        """Calls before a verdict while closed (rule of Resilience4j: clamped in a window of calls only)."""
        return self.min_calls if self.window.calls is None else min(self.min_calls, self.window.calls)

    def wait(self, attempt: int) -> float:
        """Seconds to stay open at the `attempt`-th opening in a row."""
        return self.wait_open(attempt) if callable(self.wait_open) else self.wait_open


def check(what: str, *facts: tuple[bool, str]) -> None:
    """Raise `ConfigError` naming each fact that doesn't hold."""
    problems = [f"{what}: {text}" for holds, text in facts if not holds]
    if problems:
        raise ConfigError(problems)


def one_of(kinds: Kinds, predicate: Predicate | None, error: BaseException) -> bool:
    """Whether `error` is of one of the kinds, or the predicate says so."""
    return isinstance(error, kinds) or (predicate is not None and predicate(error))


def kinds(value: type[BaseException] | Iterable[type[BaseException]]) -> Kinds:
    """One exception type or several, as a tuple."""
    return (value,) if isinstance(value, type) else tuple(value)


__all__ = ["CircuitBreakerConfig", "Probes", "Slow", "check", "over", "probes"]
