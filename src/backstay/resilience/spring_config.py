"""Reads the `resilience4j.*` keys of a Spring `application.yml`: kinds, configs, instances, base configs.

Keys in any of Spring's spellings, durations in its forms and ISO's, placeholders from the environment. An exception
class is found by `errors` (Java's name or any other → exception type), by the table of common ones here, or by the name
of a built-in Python exception; a predicate by `functions`. Every mistake is reported at once, with file, key and what
is allowed. Of an instance, each value comes from itself, else its base config, else the config `default`.
"""

import builtins
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from backstay.errors import ConfigError
from backstay.resilience.budget import Budget
from backstay.resilience.config import Probes, Slow
from backstay.resilience.events import State
from backstay.resilience.waits import Wait, exponential, randomised
from backstay.resilience.windows import WindowSize

Options = dict[str, Any]
Errors = Mapping[str, type[BaseException]]
Functions = Mapping[str, Callable[..., Any]]

DEFAULT = "default"
JAVA_ERRORS: dict[str, type[BaseException]] = {
    "java.lang.Throwable": BaseException,
    "java.lang.Exception": Exception,
    "java.lang.RuntimeException": Exception,
    "java.lang.IllegalArgumentException": ValueError,
    "java.io.IOException": OSError,
    "java.net.ConnectException": ConnectionError,
    "java.net.SocketException": ConnectionError,
    "java.net.SocketTimeoutException": TimeoutError,
    "java.net.http.HttpTimeoutException": TimeoutError,
    "java.net.UnknownHostException": OSError,
    "java.util.concurrent.TimeoutException": TimeoutError,
}
NO_CAP = 1e9  # seconds
MULTIPLIER, FACTOR = 1.5, 0.5  # Resilience4j's, where the file gives none
NEUTRAL = ("baseConfig", "registerHealthIndicator", "allowHealthIndicatorToFail", "eventConsumerBufferSize", "tags")
"""Keys of every kind that say nothing about its policy."""
KEYS = {
    "circuitbreaker": """failureRateThreshold slowCallRateThreshold slowCallDurationThreshold slidingWindowType
        slidingWindowSize minimumNumberOfCalls permittedNumberOfCallsInHalfOpenState waitDurationInOpenState
        maxWaitDurationInHalfOpenState transitionToStateAfterWaitDuration automaticTransitionFromOpenToHalfOpenEnabled
        initialState recordExceptions ignoreExceptions recordFailurePredicate ignoreExceptionPredicate
        recordResultPredicate enableExponentialBackoff exponentialBackoffMultiplier
        exponentialMaxWaitDurationInOpenState enableRandomizedWait randomizedWaitFactor writableStackTraceEnabled
        ignoreClassBindingExceptions parity""",
    "retry": """maxAttempts waitDuration intervalBiFunction retryExceptions ignoreExceptions retryExceptionPredicate
        resultPredicate failAfterMaxAttempts enableExponentialBackoff exponentialBackoffMultiplier
        exponentialMaxWaitDuration enableRandomizedWait randomizedWaitFactor ignoreClassBindingExceptions budgetRatio
        budgetMinimumPerSecond""",
    "ratelimiter": "limitForPeriod limitRefreshPeriod timeoutDuration subscribeForEvents writableStackTraceEnabled",
    "bulkhead": "maxConcurrentCalls maxWaitDuration writableStackTraceEnabled",
    "threadpoolbulkhead": """maxThreadPoolSize coreThreadPoolSize queueCapacity keepAliveDuration contextPropagators
        writableStackTraceEnabled""",
    "timelimiter": "timeoutDuration cancelRunningFuture",
}
ALLOWED = {kind: (*NEUTRAL, *keys.split()) for kind, keys in KEYS.items()}
ASPECTS = tuple(f"{kind}AspectOrder" for kind in KEYS)


def read_file(
    file: str | Path,
    *,
    environ: Mapping[str, str] | None = None,
    errors: Errors | None = None,
    functions: Functions | None = None,
    only: Collection[str] | None = None,
) -> dict[str, dict[str, Options]]:
    """What `read` finds in a file."""
    try:
        text = Path(file).read_text()
    except OSError as error:
        raise ConfigError([f"{file}: can't be read: {error.strerror}"]) from error
    return read(text, where=str(file), environ=environ, errors=errors, functions=functions, only=only)


def read(
    text: str,
    *,
    where: str = "resilience4j configuration",
    environ: Mapping[str, str] | None = None,
    errors: Errors | None = None,
    functions: Functions | None = None,
    only: Collection[str] | None = None,
) -> dict[str, dict[str, Options]]:
    """The options of each policy, by kind (as in `KEYS`) and instance; `default` is what other names get.

    only: the instances wanted; others in the file aren't looked at.
    """
    from backstay.spring import canonical, lookup, read_document

    try:
        tree = read_document(text, os.environ if environ is None else environ)
    except ConfigError as error:
        raise ConfigError([f"{where}: {problem}" for problem in error.problems]) from None
    root = lookup(tree, "resilience4j") or {}
    reader = _Reader(where, errors or {}, functions or {}, only)
    kinds = {canonical(key): (key, section) for key, section in root.items()}
    for key, _ in (found for kind, found in kinds.items() if kind not in KEYS and kind not in _ACCEPTED):
        reader.problem(f"resilience4j.{key}", f"unknown; there are: {', '.join(KEYS)}")
    found = {kind: reader.kind(kind, *kinds[kind]) for kind in KEYS if kind in kinds}
    if reader.problems:
        raise ConfigError(reader.problems)
    return found


class _Reader:
    """Reads kind after kind and collects what is wrong."""

    def __init__(self, where: str, errors: Errors, functions: Functions, only: Collection[str] | None) -> None:
        self._only = only
        self.problems: list[str] = []
        self._where = where
        self.errors = {**JAVA_ERRORS, **errors}
        self.functions = functions

    def problem(self, key: str, text: str) -> None:
        """Note a mistake."""
        self.problems.append(f"{self._where}: {key}: {text}")

    def kind(self, kind: str, key: str, section: Any) -> dict[str, Options]:
        """The options of all instances of a kind."""
        path = f"resilience4j.{key}"
        from backstay.spring import canonical, lookup

        if not isinstance(section, Mapping):
            self.problem(path, f"{section!r} is not a mapping with configs and instances")
            return {}
        for each in section:
            if canonical(each) not in ("configs", "instances", "backends", "tags", canonical(f"{kind}AspectOrder")):
                self.problem(f"{path}.{each}", "unknown; there are: configs, instances, tags")
        configs = self._entries(kind, f"{path}.configs", lookup(section, "configs"))
        given = lookup(section, "instances")
        if self._only is not None and isinstance(given, Mapping):
            given = {name: values for name, values in given.items() if name in self._only}
        instances = self._entries(kind, f"{path}.instances", given)
        common = lookup(section, "tags") or {}
        result = {name: _Values(self, path, "configs", configs[name]).options(kind) for name in configs}
        defaults = {DEFAULT: result.get(DEFAULT, {})}
        for name, values in instances.items():
            whole = self._with_base(f"{path}.instances.{name}", name, values, configs)
            options = _Values(self, f"{path}.instances", name, whole).options(kind)
            options["tags"] = {**common, **(whole.get("tags") or (None, {}))[1]}
            defaults[name] = options
        return defaults

    def _entries(self, kind: str, path: str, entries: Any) -> dict[str, dict[str, tuple[str, Any]]]:
        """Names → canonical keys → (key as written, value)."""
        from backstay.spring import canonical

        if entries is None:
            return {}
        if not isinstance(entries, Mapping):
            self.problem(path, f"{entries!r} is not a mapping from names to settings")
            return {}
        allowed = {canonical(key): key for key in ALLOWED[kind]}
        found: dict[str, dict[str, tuple[str, Any]]] = {}
        for name, values in entries.items():
            if not isinstance(values or {}, Mapping):
                self.problem(f"{path}.{name}", f"{values!r} is not a mapping of settings")
                continue
            for key in values or {}:
                if canonical(key) not in allowed:
                    self.problem(f"{path}.{name}.{key}", f"unknown; allowed are {', '.join(ALLOWED[kind])}")
            found[name] = {canonical(key): (str(key), value) for key, value in (values or {}).items()}
        return found

    def _with_base(
        self, path: str, name: str, values: dict[str, tuple[str, Any]], configs: Mapping[str, Any]
    ) -> dict[str, tuple[str, Any]]:
        """An instance's values over those of its base."""
        base = str(values["baseconfig"][1]) if "baseconfig" in values else ""
        if base == name:
            self.problem(f"{path}.baseConfig", f"{base!r} is its own name")
            return values
        if base and base not in configs:
            self.problem(f"{path}.baseConfig", f"{base!r} isn't among the configs: {', '.join(configs) or 'none'}")
            return values
        below = dict(configs.get(base or name, {} if base else configs.get(DEFAULT, {})))
        for types, predicate in _DISCARDED:
            if types in values:
                below.pop(predicate, None)
        return {**below, **values}


class _Values:
    """One instance's values, read by type; each mistake is noted."""

    def __init__(self, reader: _Reader, path: str, name: str, values: Mapping[str, tuple[str, Any]]) -> None:
        self._reader = reader
        self._path = f"{path}.{name}"
        self._values = values

    def options(self, kind: str) -> Options:
        """The arguments of the policy's constructor, checked by constructing it."""
        options = _OPTIONS[kind](self)
        return {name: value for name, value in options.items() if value is not None}

    def has(self, key: str) -> bool:
        """Whether the key is given."""
        return key.lower() in self._values

    def wrong(self, key: str, text: str) -> None:
        """Note a mistake in the value of `key`."""
        written, value = self._values[key.lower()]
        self._reader.problem(f"{self._path}.{written}", f"{value!r} {text}")

    def _value(self, key: str) -> Any:
        return self._values[key.lower()][1] if self.has(key) else None

    def number(self, key: str, least: float = 0.0, most: float = float("inf"), *, above: bool = False) -> float | None:
        """A number in [least, most], or in (least, most]."""
        value = self._value(key)
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not (least < number <= most if above else least <= number <= most):
            span = f"{'(' if above else '['}{least:g}, {most:g}]" if most < float("inf") else f"of at least {least:g}"
            self.wrong(key, f"is not a number {'in ' if most < float('inf') else ''}{span}")
            return None
        return number

    def whole(self, key: str, least: int) -> int | None:
        """A whole number of at least `least`."""
        value = self._value(key)
        if value is None:
            return None
        if isinstance(value, bool) or not str(value).strip().lstrip("+-").isdigit() or int(value) < least:
            self.wrong(key, f"is not a whole number of at least {least}")
            return None
        return int(value)

    def seconds(self, key: str, least: float = 0.0) -> float | None:
        """A duration of at least `least` seconds."""
        from backstay.spring import seconds

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
        """True or false."""
        value = self._value(key)
        text = str(value).lower()
        if value is not None and text not in ("true", "false"):
            self.wrong(key, "is not true or false")
        return None if value is None else text == "true"

    def one_of(self, key: str, *names: str) -> str | None:
        """One of some words, in capitals."""
        value = self._value(key)
        if value is None:
            return None
        if str(value).upper().replace("-", "_") not in names:
            self.wrong(key, f"is none of {', '.join(names)}")
            return None
        return str(value).upper().replace("-", "_")

    def errors(self, key: str) -> tuple[type[BaseException], ...] | None:
        """Exception types by the names of classes."""
        value = self._value(key)
        if value is None:
            return None
        names = value if isinstance(value, list) else [part for part in str(value).split(",") if part.strip()]
        found = [self._error(key, str(name).strip()) for name in names]
        return tuple(each for each in found if each is not None)

    def _error(self, key: str, name: str) -> type[BaseException] | None:
        known = self._reader.errors.get(name) or getattr(builtins, name, None)
        if isinstance(known, type) and issubclass(known, BaseException):
            return known
        if not self.flag("ignoreClassBindingExceptions"):
            self.wrong(
                key,
                f"names {name!r}, which is not a known exception; give errors={{{name!r}: <exception type>}}. "
                f"Known are Python's own and {', '.join(sorted(self._reader.errors))}",
            )
        return None

    def function(self, key: str) -> Callable[..., Any] | None:
        """A function by its name."""
        value = self._value(key)
        if value is None:
            return None
        if str(value) not in self._reader.functions:
            known = ", ".join(sorted(self._reader.functions)) or "none"
            self.wrong(key, f"is not a known function; give functions={{{value!r}: <function>}}. Known are {known}")
            return None
        return self._reader.functions[str(value)]

    def wait(self, length: float | None, cap: str) -> float | Wait | None:
        """A wait that may grow or vary."""
        multiplier = self.number("exponentialBackoffMultiplier", 1.0)
        factor = self.number("randomizedWaitFactor", 0.0, 1.0)
        growing, shaky = self.flag("enableExponentialBackoff"), self.flag("enableRandomizedWait")
        most = self.seconds(cap, 0.001)
        if not length or not (growing or shaky):
            return length
        jitter = (FACTOR if factor is None else factor) if shaky else 0.0
        if not growing:
            return randomised(length, jitter=jitter)
        if multiplier is None:
            most, multiplier = None, MULTIPLIER  # as there: a cap is heard only beside a multiplier
        return exponential(length, multiplier=multiplier, cap=max(length, most or NO_CAP), jitter=jitter, whole_ms=True)


def _circuit_breaker(values: _Values) -> Options:
    if values.flag("enableExponentialBackoff") and values.flag("enableRandomizedWait"):
        values.wrong("enableRandomizedWait", "excludes enableExponentialBackoff: enable only one of them")
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
        "wait_open": values.wait(
            values.seconds("waitDurationInOpenState", 0.001), "exponentialMaxWaitDurationInOpenState"
        ),
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


def _retry(values: _Values) -> Options:
    own = values.function("intervalBiFunction")
    length = values.seconds("waitDuration")
    if own is not None and length is not None:
        values.wrong("waitDuration", "excludes intervalBiFunction: give one of them")
    ratio = values.number("budgetRatio", 0.0, 1.0)
    least = values.number("budgetMinimumPerSecond", 0.0)
    budget = _given(ratio=ratio, minimum=least)
    grows = values.flag("enableExponentialBackoff") or values.flag("enableRandomizedWait")
    return {
        "attempts": values.whole("maxAttempts", 1),
        "wait": own or values.wait(0.5 if length is None and grows else length, "exponentialMaxWaitDuration"),
        "on": values.errors("retryExceptions") or (() if values.has("retryExceptionPredicate") else None),
        "ignore": values.errors("ignoreExceptions"),
        "on_if": values.function("retryExceptionPredicate"),
        "retry_result": values.function("resultPredicate"),
        "fail_after": values.flag("failAfterMaxAttempts"),
        "budget": Budget(**budget) if budget else None,
    }


def _rate_limiter(values: _Values) -> Options:
    return {
        "limit": values.whole("limitForPeriod", 1),
        "period": values.seconds("limitRefreshPeriod", 1e-9),
        "max_wait": values.seconds("timeoutDuration"),
    }


def _bulkhead(values: _Values) -> Options:
    return {"max_calls": values.whole("maxConcurrentCalls", 0), "max_wait": values.seconds("maxWaitDuration")}


def _thread_pool(values: _Values) -> Options:
    values.whole("coreThreadPoolSize", 1), values.seconds("keepAliveDuration")  # threads are started as needed
    return {"threads": values.whole("maxThreadPoolSize", 1), "queue": values.whole("queueCapacity", 0)}


def _time_limiter(values: _Values) -> Options:
    if values.flag("cancelRunningFuture") is False:
        values.wrong("cancelRunningFuture", "isn't possible here: a call that is out of time is always cancelled")
    return {"timeout": values.seconds("timeoutDuration", 0.001)}


def _given(**values: Any) -> Options:
    return {name: value for name, value in values.items() if value is not None}


_OPTIONS: dict[str, Callable[[_Values], Options]] = {
    "circuitbreaker": _circuit_breaker,
    "retry": _retry,
    "ratelimiter": _rate_limiter,
    "bulkhead": _bulkhead,
    "threadpoolbulkhead": _thread_pool,
    "timelimiter": _time_limiter,
}
_ACCEPTED = ("micrometer", "timer", "metrics", "tags", "scheduled")
"""Sections that say nothing about a policy."""
_DISCARDED = (("recordexceptions", "recordfailurepredicate"), ("ignoreexceptions", "ignoreexceptionpredicate"))
"""Types given in an instance discard the predicate of its base."""

__all__ = ["JAVA_ERRORS", "read", "read_file"]
