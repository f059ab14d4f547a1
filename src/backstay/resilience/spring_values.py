"""One instance's values, read by type, and the options of the policy that they make."""

import builtins
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from backstay.resilience.budget import Budget
from backstay.resilience.config import Probes, Slow
from backstay.resilience.events import State
from backstay.resilience.waits import Wait, exponential, randomised
from backstay.resilience.windows import WindowSize
from backstay.spring import alphanumeric, seconds, text_of

Options = dict[str, Any]

NO_CAP = 1e9  # seconds
MULTIPLIER, FACTOR = 1.5, 0.5  # Resilience4j's, where the file gives none
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
TRUE, FALSE = ("true", "on", "yes", "1"), ("false", "off", "no", "0")
"""As Spring converts them."""


class Notes(Protocol):
    """The reader of a file: it resolves placeholders, records mistakes, and resolves names of classes and functions."""

    errors: Mapping[str, type[BaseException]]
    functions: Mapping[str, Callable[..., Any]]

    def problem(self, path: tuple[str, ...], text: str) -> None:
        """Note a mistake at a path of keys."""

    def resolve(self, path: tuple[str, ...], value: Any) -> Any:
        """Return the value with its placeholders replaced; None, with a note, where one has no value."""


def options_of(kind: str, values: "Values") -> Options:
    """Return the arguments of the constructor of a policy of that kind."""
    return {name: value for name, value in _OPTIONS[kind](values).items() if value is not None}


class Values:
    """One instance's values; each mistake is noted.

    values: canonical keys → (key as written, value).
    """

    def __init__(self, notes: Notes, path: tuple[str, ...], values: Mapping[str, tuple[str, Any]]) -> None:
        self._notes = notes
        self._path = path
        self._values = {
            key: (written, notes.resolve((*path, written), value)) for key, (written, value) in values.items()
        }

    def has(self, key: str) -> bool:
        """Return whether the key is given."""
        return key.lower() in self._values

    def wrong(self, key: str, text: str) -> None:
        """Note a mistake in the value of `key`."""
        written, value = self._values[key.lower()]
        self._notes.problem((*self._path, written), f"{value!r} {text}")

    def _value(self, key: str) -> Any:
        return self._values[key.lower()][1] if self.has(key) else None

    def number(self, key: str, least: float = 0.0, most: float = float("inf"), *, above: bool = False) -> float | None:
        """Return a number in [least, most], or in (least, most]."""
        value = self._value(key)
        if value is None:
            return None
        try:
            number = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not (least < number <= most if above else least <= number <= most):
            span = f"{'(' if above else '['}{least:g}, {most:g}]" if most < float("inf") else f"of at least {least:g}"
            self.wrong(key, f"is not a number {'in ' if most < float('inf') else ''}{span}")
            return None
        return number

    def whole(self, key: str, least: int) -> int | None:
        """Return a whole number of at least `least`."""
        value = self._value(key)
        if value is None:
            return None
        if _WHOLE.fullmatch(text_of(value).strip()) is None or int(value) < least:
            self.wrong(key, f"is not a whole number of at least {least}")
            return None
        return int(value)

    def seconds(self, key: str, least: float = 0.0) -> float | None:
        """Return a duration of at least `least` seconds."""
        value = self._value(key)
        if value is None:
            return None
        try:
            length = seconds(value)
        except ValueError:
            self.wrong(key, "is not a duration such as 500ms, 5s, PT1M30S or a number of milliseconds")
            return None
        if length < least:
            self.wrong(key, f"is less than {least:g} seconds")
            return None
        return length

    def flag(self, key: str) -> bool | None:
        """Return a boolean, in any of Spring's spellings."""
        value = self._value(key)
        text = text_of(value).strip().lower()
        if value is not None and text not in (*TRUE, *FALSE):
            self.wrong(key, "is not true or false")
        return None if value is None else text in TRUE

    def one_of(self, key: str, *names: str) -> str | None:
        """One of some words, in capitals."""
        value = self._value(key)
        if value is None:
            return None
        known = {alphanumeric(name): name for name in names}
        found = known.get(alphanumeric(value))
        if found is None:
            self.wrong(key, f"is none of {', '.join(names)}")
        return found

    def errors(self, key: str) -> tuple[type[BaseException], ...] | None:
        """Exception types by the names of classes."""
        value = self._value(key)
        if value is None:
            return None
        names = value if isinstance(value, list) else [part for part in str(value).split(",") if part.strip()]
        found = [self._error(key, str(name).strip()) for name in names]
        return tuple(each for each in found if each is not None)

    def _error(self, key: str, name: str) -> type[BaseException] | None:
        known = self._notes.errors.get(name) or getattr(builtins, name, None)
        if isinstance(known, type) and issubclass(known, BaseException):
            return known
        if not self.flag("ignoreClassBindingExceptions"):
            self.wrong(
                key,
                f"names {name!r}, which is not a known exception; give errors={{{name!r}: <exception type>}}. "
                f"Known are Python's own and {', '.join(sorted(self._notes.errors))}",
            )
        return None

    def function(self, key: str) -> Callable[..., Any] | None:
        """Return a function by its name."""
        value = self._value(key)
        if value is None:
            return None
        if str(value) not in self._notes.functions:
            known = ", ".join(sorted(self._notes.functions)) or "none"
            self.wrong(key, f"is not a known function; give functions={{{value!r}: <function>}}. Known are {known}")
            return None
        return self._notes.functions[str(value)]

    def wait(self, length: float | None, cap: str) -> float | Wait | None:
        """Return a wait that may grow or vary; as in Resilience4j, a cap counts only beside the setting it limits."""
        multiplier = self.number("exponentialBackoffMultiplier", 1.0)
        factor = self.number("randomizedWaitFactor", 0.0, 1.0)
        growing, varying = self.flag("enableExponentialBackoff"), self.flag("enableRandomizedWait")
        most = self.seconds(cap, 0.001)
        if not length or not (growing or varying):
            return length
        if not growing:
            return randomised(length, jitter=FACTOR if factor is None else factor)
        if multiplier is None:
            multiplier, factor, most = MULTIPLIER, None, None
        if varying and factor is None:
            factor, most = FACTOR, None
        jitter = (factor or 0.0) if varying else 0.0
        wait = exponential(length, multiplier=multiplier, cap=NO_CAP, jitter=jitter, whole_ms=True)
        cap_seconds = NO_CAP if most is None else most
        return lambda attempt: min(wait(attempt), cap_seconds)

    def check_shape(self, kind: str) -> None:
        """Note mistakes in what shapes a wait, where no length of a wait stands beside it."""
        self.wait(None, _CAPS[kind])


def _circuit_breaker(values: Values) -> Options:
    size = values.whole("slidingWindowSize", 1)
    window = values.one_of("slidingWindowType", "COUNT_BASED", "TIME_BASED")
    state = values.one_of("initialState", *State.__members__)
    slow = _given(
        seconds=values.seconds("slowCallDurationThreshold", 1e-9),
        rate=values.number("slowCallRateThreshold", 0, 100, above=True),
    )
    then = values.one_of("transitionToStateAfterWaitDuration", "OPEN", "CLOSED")
    half = _given(
        calls=values.whole("permittedNumberOfCallsInHalfOpenState", 1),
        max_wait=values.seconds("maxWaitDurationInHalfOpenState"),
        then=State[then] if then else None,
    )
    return {
        "failure_rate": values.number("failureRateThreshold", 0, 100, above=True),
        "slow": Slow(**slow) if slow else None,
        "window": (WindowSize(seconds=size or 100) if window == "TIME_BASED" else WindowSize(calls=size or 100))
        if size or window
        else None,
        "min_calls": values.whole("minimumNumberOfCalls", 1),
        "wait_open": values.wait(values.seconds("waitDurationInOpenState", 0.001), _CAPS["circuitbreaker"]),
        "half_open": Probes(**half) if half else None,
        "auto_half_open": values.flag("automaticTransitionFromOpenToHalfOpenEnabled"),
        "record": values.errors("recordExceptions") or (() if values.has("recordFailurePredicate") else None),
        "ignore": values.errors("ignoreExceptions"),
        "record_if": values.function("recordFailurePredicate"),
        "ignore_if": values.function("ignoreExceptionPredicate"),
        "fail_result": values.function("recordResultPredicate"),
        "initial_state": State[state] if state else None,
        "parity": values.flag("parity"),
    }


def _retry(values: Values) -> Options:
    own = values.function("intervalBiFunction")
    length = values.seconds("waitDuration")
    if own is not None and length is not None:
        values.wrong("waitDuration", "excludes intervalBiFunction: give one of them")
    ratio = values.number("budgetRatio", 0.0, 1.0)
    least = values.number("budgetMinimumPerSecond", 0.0)
    budget = _given(ratio=ratio, minimum=least)
    return {
        "attempts": values.whole("maxAttempts", 1),
        "wait": None if own is not None else values.wait(length, _CAPS["retry"]),
        "wait_for": own,
        "on": values.errors("retryExceptions") or (() if values.has("retryExceptionPredicate") else None),
        "ignore": values.errors("ignoreExceptions"),
        "on_if": values.function("retryExceptionPredicate"),
        "retry_result": values.function("resultPredicate"),
        "fail_after": values.flag("failAfterMaxAttempts"),
        "budget": Budget(**budget) if budget else None,
    }


def _rate_limiter(values: Values) -> Options:
    return {
        "limit": values.whole("limitForPeriod", 1),
        "period": values.seconds("limitRefreshPeriod", 1e-9),
        "max_wait": values.seconds("timeoutDuration"),
    }


def _bulkhead(values: Values) -> Options:
    return {"max_calls": values.whole("maxConcurrentCalls", 0), "max_wait": values.seconds("maxWaitDuration")}


def _thread_pool(values: Values) -> Options:
    values.whole("coreThreadPoolSize", 1), values.seconds("keepAliveDuration")  # threads are started as needed
    return {"threads": values.whole("maxThreadPoolSize", 1), "queue": values.whole("queueCapacity", 0)}


def _time_limiter(values: Values) -> Options:
    if values.flag("cancelRunningFuture") is False:
        values.wrong("cancelRunningFuture", "isn't possible here: a call that is out of time is always cancelled")
    return {"timeout": values.seconds("timeoutDuration", 0.001)}


def _given(**values: Any) -> Options:
    return {name: value for name, value in values.items() if value is not None}


_OPTIONS: dict[str, Callable[[Values], Options]] = {
    "circuitbreaker": _circuit_breaker,
    "retry": _retry,
    "ratelimiter": _rate_limiter,
    "bulkhead": _bulkhead,
    "threadpoolbulkhead": _thread_pool,
    "timelimiter": _time_limiter,
}
_CAPS = {"circuitbreaker": "exponentialMaxWaitDurationInOpenState", "retry": "exponentialMaxWaitDuration"}

__all__ = ["Options", "Values", "options_of"]
