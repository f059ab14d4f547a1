"""The changes a route makes, by the names and arguments that Spring Cloud Gateway gives them.

Filters are compiled into one `Actions`: what to do with the path, which headers to drop and which to write. The data
plane then carries these out without knowing the filters.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from backstay.gateway.arguments import Arguments
from backstay.gateway.definitions import Step
from backstay.gateway.limits import TokenBuckets
from backstay.gateway.protections import BreakerFilter, RetryFilter, read_breaker, read_retry
from backstay.http.framing import field_line
from backstay.http.paths import Variables, expand

PathChange = Callable[[str, Variables], str]

MAX_REQUEST_SIZE = 5_000_000  # bytes: what RequestSize means without a maxSize
_FRAMING = frozenset(("content-length", "transfer-encoding", "connection", "host", "upgrade", "trailer", "te"))
_USER_KEYS = ("user", "#{@userKeyResolver}", "#{@principalNameKeyResolver}")
_ADDRESS_KEYS = ("address", "#{@remoteAddrKeyResolver}", "#{@ipKeyResolver}")


@dataclass(slots=True)
class HeaderChanges:
    """Headers to drop (lower-case names) and headers to write, whose values may hold `{variables}`."""

    drop: set[bytes] = field(default_factory=set)
    write: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, value: str) -> None:
        """Write one more."""
        self.write.append((name, value))

    def set(self, name: str, value: str) -> None:
        """Write it instead of what is there."""
        self.remove(name)
        self.write.append((name, value))

    def remove(self, name: str) -> None:
        """Drop what is there and what was to be written."""
        self.drop.add(name.lower().encode())
        self.write = [each for each in self.write if each[0].lower() != name.lower()]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A limit of requests: which buckets, and whose."""

    buckets: TokenBuckets
    by_user: bool
    """By the token's subject where there is one, else by the client's address."""


@dataclass(slots=True)
class Actions:
    """All that the filters of a route do."""

    path: list[PathChange] = field(default_factory=list)
    request: HeaderChanges = field(default_factory=HeaderChanges)
    response: HeaderChanges = field(default_factory=HeaderChanges)
    limits: list[RateLimit] = field(default_factory=list)
    max_body: int | None = None
    breaker: BreakerFilter | None = None
    retry: RetryFilter | None = None


Effect = Callable[[Actions], None]


def compile_filters(steps: Sequence[Step], problems: list[str]) -> list[Effect]:
    """Compile filters once, noting mistakes; each effect can be applied to the actions of several routes."""
    effects = []
    for step in steps:
        if step.name in _FACTORIES:
            effects.append(_FACTORIES[step.name](step, problems))
        else:
            problems.append(f"{step.where}: unknown filter {step.name!r}; known: {', '.join(FILTERS)}")
    return effects


def _strip_prefix(step: Step, problems: list[str]) -> Effect:
    args = Arguments(step, ("parts",), problems)
    parts = int(args.number("parts", 1))

    def change(path: str, _: Variables) -> str:
        return "/" + "/".join(path[1:].split("/")[parts:])

    return lambda actions: actions.path.append(change)


def _prefix_path(step: Step, problems: list[str]) -> Effect:
    template = _template(Arguments(step, ("prefix",), problems), "prefix")
    return lambda actions: actions.path.append(lambda path, variables: _filled(template, variables) + path)


def _set_path(step: Step, problems: list[str]) -> Effect:
    template = _template(Arguments(step, ("template",), problems), "template")
    return lambda actions: actions.path.append(lambda _, variables: _filled(template, variables))


def _template(args: Arguments, name: str) -> str:
    template = args.text(name)
    if template and (not template.startswith("/") or not template.isascii() or re.search(r"[\s?#]", template)):
        args.problem(f"{name}={template!r} must be an ASCII path that begins with /, without a query")
    return template


def _filled(template: str, variables: Variables) -> str:
    if "{" not in template:
        return template
    return expand(template, {name: quote(value, safe="/") for name, value in variables.items()})


def _rewrite_path(step: Step, problems: list[str]) -> Effect:
    args = Arguments(step, ("regexp", "replacement"), problems)
    pattern = args.pattern("regexp")
    written = args.text("replacement")
    if not written.isascii() or re.search(r"[\s?#]", written):
        args.problem(f"replacement={written!r} must be ASCII, without spaces or a query")
    replacement = _java_replacement(written)
    if pattern is None:
        return lambda _: None
    try:
        pattern.sub(replacement, "")
        re.sub(pattern, replacement, "/")
    except (re.error, IndexError) as error:
        args.problem(f"the replacement doesn't fit the regexp: {error}")
    found = pattern

    def change(path: str, _: Variables) -> str:
        changed = found.sub(replacement, path)
        return changed if changed.startswith("/") else "/" + changed

    return lambda actions: actions.path.append(change)


def _java_replacement(text: str) -> str:
    r"""`$\{name}` and `$1` of Java as `\g<name>` and `\g<1>`."""
    text = text.replace("$\\", "$").replace("\\", r"\\")
    return re.sub(r"\$(?:\{(\w+)\}|(\d+))", lambda found: rf"\g<{found[1] or found[2]}>", text)


def _header_change(verb: str, side: str) -> Callable[[Step, list[str]], Effect]:
    names = ("name",) if verb == "remove" else ("name", "value")

    def factory(step: Step, problems: list[str]) -> Effect:
        args = Arguments(step, names, problems)
        given = [args.text(name) for name in names]
        if not _is_header(args, *given):
            return lambda _: None

        def effect(actions: Actions) -> None:
            changes: HeaderChanges = getattr(actions, side)
            getattr(changes, verb)(*given)

        return effect

    return factory


def _is_header(args: Arguments, name: str, value: str = "") -> bool:
    if name.lower() in _FRAMING:
        args.problem(f"the header {name} belongs to the connection and can't be changed")
        return False
    try:
        field_line(name or "missing", value)
    except ValueError as error:
        args.problem(str(error))
        return False
    return bool(name)


def _rate_limiter(step: Step, problems: list[str]) -> Effect:
    args = Arguments(_without_prefix(step), _LIMITER_ARGUMENTS, problems)
    rate = args.number("replenishRate", least=0.001)
    burst = args.number("burstCapacity", 1)
    cost = args.number("requestedTokens", 1)
    if cost > burst:
        args.problem(f"burstCapacity={burst:g} must be at least requestedTokens={cost:g}, else nothing is ever allowed")
    resolver = args.text("keyResolver", "user")
    if resolver not in (*_USER_KEYS, *_ADDRESS_KEYS):
        args.problem(f"keyResolver={resolver!r} must be one of {', '.join((*_USER_KEYS, *_ADDRESS_KEYS))}")
    limit = RateLimit(TokenBuckets(rate, burst, cost), by_user=resolver in _USER_KEYS)
    return lambda actions: actions.limits.append(limit)


_LIMITER_ARGUMENTS = ("replenishRate", "burstCapacity", "requestedTokens", "keyResolver")


def _without_prefix(step: Step) -> Step:
    """`redis-rate-limiter.replenishRate` and its nested form, as `replenishRate`."""
    if not isinstance(step.args, Mapping):
        return step
    args = dict(step.args)
    nested = args.pop("redis-rate-limiter", None)
    if isinstance(nested, Mapping):
        args |= nested
    return Step(step.name, {str(k).removeprefix("redis-rate-limiter."): v for k, v in args.items()}, step.where)


def _request_size(step: Step, problems: list[str]) -> Effect:
    size = Arguments(step, ("maxSize",), problems).size("maxSize", MAX_REQUEST_SIZE)

    def effect(actions: Actions) -> None:
        actions.max_body = size

    return effect


def _circuit_breaker(step: Step, problems: list[str]) -> Effect:
    breaker = read_breaker(step, problems)

    def effect(actions: Actions) -> None:
        actions.breaker = breaker

    return effect


def _retry(step: Step, problems: list[str]) -> Effect:
    retry = read_retry(step, problems)

    def effect(actions: Actions) -> None:
        actions.retry = retry

    return effect


_FACTORIES: dict[str, Callable[[Step, list[str]], Effect]] = {
    "AddRequestHeader": _header_change("add", "request"),
    "AddResponseHeader": _header_change("add", "response"),
    "CircuitBreaker": _circuit_breaker,
    "PrefixPath": _prefix_path,
    "RemoveRequestHeader": _header_change("remove", "request"),
    "RemoveResponseHeader": _header_change("remove", "response"),
    "RequestRateLimiter": _rate_limiter,
    "RequestSize": _request_size,
    "Retry": _retry,
    "RewritePath": _rewrite_path,
    "SetPath": _set_path,
    "SetRequestHeader": _header_change("set", "request"),
    "SetResponseHeader": _header_change("set", "response"),
    "StripPrefix": _strip_prefix,
}

FILTERS = tuple(sorted(_FACTORIES))
"""The names that a file may use."""
