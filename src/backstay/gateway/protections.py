"""The filters `CircuitBreaker` and `Retry`, by the names and arguments that Spring Cloud Gateway gives them.

Their order in the file doesn't matter: fallback ( retry ( circuit breaker ( time limiter ( call )))) is the one order
that Resilience4j recommends, and the only one here. The breaker and its time limiter have their configuration under
`resilience4j.circuitbreaker` and `resilience4j.timelimiter`, by the name that the filter gives.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from backstay.errors import ConfigError
from backstay.gateway.arguments import Arguments
from backstay.gateway.definitions import Step
from backstay.resilience import exponential, fixed
from backstay.resilience.java_errors import JAVA_ERRORS
from backstay.spring import seconds

RETRIES = 3
METHODS = "GET"
EXCEPTIONS = "java.io.IOException,org.springframework.cloud.gateway.support.TimeoutException"
FIRST_BACKOFF = 0.005  # seconds; Spring's, where a backoff is configured without it
FACTOR = 2.0
RANDOM_FACTOR = 0.5
BUDGET_RATIO = 0.1
BUDGET_MINIMUM = 1.0
SERIES = {"INFORMATIONAL": 1, "SUCCESSFUL": 2, "REDIRECTION": 3, "CLIENT_ERROR": 4, "SERVER_ERROR": 5}
_KNOWN_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_ERRORS = {
    **JAVA_ERRORS,
    "org.springframework.cloud.gateway.support.TimeoutException": TimeoutError,
    "ConnectionError": ConnectionError,
    "TimeoutError": TimeoutError,
    "OSError": OSError,
}
_FORWARD = re.compile(r"forward:(/[!-~]*)")
_BREAKER_ARGUMENTS = ("name", "fallbackUri", "statusCodes", "resumeWithoutError")
_RETRY_ARGUMENTS = (
    "retries",
    "statuses",
    "methods",
    "backoff.firstBackoff",
    "backoff.maxBackoff",
    "backoff.factor",
    "backoff.basedOnPreviousValue",
    "series",
    "exceptions",
    "jitter.randomFactor",
    "timeout",
    "budget.ratio",
    "budget.minimumPerSecond",
)


@dataclass(frozen=True, slots=True)
class BreakerFilter:
    """`CircuitBreaker`, as written."""

    name: str
    statuses: frozenset[int]
    """Answers that are failures, besides no answer at all."""
    fallback: str | None
    """Path of the route that answers instead."""
    where: str


@dataclass(frozen=True, slots=True)
class RetryFilter:
    """`Retry`, as written."""

    attempts: int
    """With the first."""
    statuses: frozenset[int]
    methods: frozenset[bytes]
    errors: tuple[type[BaseException], ...]
    wait: Callable[[int], float]
    """Seconds before the next attempt, by the number of the one that failed."""
    timeout: float
    """Seconds from the first attempt in which another may begin."""
    budget_ratio: float
    budget_minimum: float


def read_breaker(step: Step, problems: list[str]) -> BreakerFilter:
    """Read `CircuitBreaker`, noting mistakes."""
    args = Arguments(step, _BREAKER_ARGUMENTS, problems, short=("name",))
    args.flag("resumeWithoutError", False)  # an answer without a fallback is passed on as it is, here in any case
    return BreakerFilter(
        name=args.text("name"),
        statuses=_statuses(args, "statusCodes"),
        fallback=_fallback(args),
        where=step.where,
    )


def read_retry(step: Step, problems: list[str]) -> RetryFilter:
    """Read `Retry`, noting mistakes."""
    args = Arguments(step, _RETRY_ARGUMENTS, problems, short=_RETRY_ARGUMENTS[:7])
    statuses = _statuses(args, "statuses")
    series = _series(args, "SERVER_ERROR")  # also beside statuses, as in Spring; an empty list leaves only those
    errors = _errors(args)
    if not statuses and not series and not errors:
        args.problem("statuses, series and exceptions may not all be empty: nothing would ever be retried")
    return RetryFilter(
        attempts=1 + args.whole("retries", RETRIES, least=1),
        statuses=statuses | {code for code in range(100, 600) if code // 100 in series},
        methods=_methods(args),
        errors=errors,
        wait=_wait(args),
        timeout=_duration(args, "timeout", float("inf")),
        budget_ratio=args.number("budget.ratio", BUDGET_RATIO),
        budget_minimum=args.number("budget.minimumPerSecond", BUDGET_MINIMUM),
    )


def _fallback(args: Arguments) -> str | None:
    text = args.text("fallbackUri", "")
    found = _FORWARD.fullmatch(text)
    if text and found is None:
        args.problem(f"fallbackUri={text!r} must be forward:/path, the path of a route of this gateway")
    return found[1] if found else None


def _statuses(args: Arguments, name: str) -> frozenset[int]:
    """Status codes by number or by the name that Spring's HttpStatus gives them."""
    codes = {text: _status(text) for text in args.words(name, "")}
    for text, code in codes.items():
        if code is None:
            args.problem(f"{name}: {text!r} is no HTTP status; give its number or a name such as BAD_GATEWAY")
    return frozenset(code for code in codes.values() if code is not None)


def _status(text: str) -> int | None:
    if text.isdecimal():
        return int(text) if 100 <= int(text) <= 599 else None
    known = HTTPStatus.__members__.get(text.upper())
    return known.value if known is not None else None


def _series(args: Arguments, default: str) -> set[int]:
    found = set()
    for text in args.words("series", default):
        if text.upper() in SERIES:
            found.add(SERIES[text.upper()])
        else:
            args.problem(f"series: {text!r} must be one of {', '.join(SERIES)}")
    return found


def _methods(args: Arguments) -> frozenset[bytes]:
    names = [text.upper() for text in args.words("methods", METHODS)]
    for name in names:
        if name not in _KNOWN_METHODS:
            args.problem(f"methods: {name!r} must be one of {', '.join(_KNOWN_METHODS)}")
    if not names:
        args.problem("methods may not be empty: nothing would ever be retried")
    return frozenset(name.encode() for name in names)


def _errors(args: Arguments) -> tuple[type[BaseException], ...]:
    found = []
    for name in args.words("exceptions", EXCEPTIONS):
        if name in _ERRORS:
            found.append(_ERRORS[name])
        else:
            args.problem(f"exceptions: {name!r} isn't known; known are {', '.join(sorted(_ERRORS))}")
    return tuple(found)


def _wait(args: Arguments) -> Callable[[int], float]:
    based = args.flag("backoff.basedOnPreviousValue", True)  # the same numbers either way, without jitter
    if not any(args.has(f"backoff.{key}") for key in ("firstBackoff", "maxBackoff", "factor")):
        return fixed(0.0)
    first = _duration(args, "backoff.firstBackoff", FIRST_BACKOFF)
    most = _duration(args, "backoff.maxBackoff", float("inf"))
    factor = args.number("backoff.factor", FACTOR, least=1.0)
    jitter = args.number("jitter.randomFactor", RANDOM_FACTOR) if args.has("jitter.randomFactor") else 0.0
    try:
        return exponential(first, multiplier=factor, cap=min(most, 1e9), jitter=jitter)
    except ConfigError as error:
        args.problem(f"backoff (basedOnPreviousValue={based}): {error}")
        return fixed(0.0)


def _duration(args: Arguments, name: str, default: float) -> float:
    if not args.has(name):
        return default
    try:
        found = seconds(args.text(name))
    except ValueError as error:
        args.problem(f"{name}: {error}")
        return default
    if found <= 0:
        args.problem(f"{name}={args.text(name)!r} must be longer than 0")
    return found
