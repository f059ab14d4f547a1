"""Routes compiled once, and the table that finds the one for a request.

Order decides: the lowest `order` first, then the order of the file; the first whose conditions all hold is taken, and
there is none for what no route names. A tree of literal path segments leaves only those to try that can match.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from backstay.errors import ConfigError
from backstay.gateway.asked import Asked
from backstay.gateway.definitions import GatewayDefinition, RouteDefinition
from backstay.gateway.filters import Actions, Effect, RateLimit, compile_filters
from backstay.gateway.predicates import Predicate, compile_conditions
from backstay.http.framing import HOP_BY_HOP, field_line
from backstay.http.paths import PathPattern, PathTree, Variables
from backstay.spring import canonical, seconds

_URI = re.compile(r"(lb|http)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(?::(\d{1,5}))?/?")
_METADATA_KEYS = ("connect-timeout", "response-timeout", "public", "scope")


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a route: an application of the registry, or a fixed address."""

    app: str | None
    host: str
    port: int

    def __str__(self) -> str:
        return f"lb://{self.app}" if self.app else f"http://{self.host}:{self.port}"


class HeaderLines:
    """Headers to write on a message: ready lines, or templates for those with variables."""

    __slots__ = ("_ready", "_templates")

    def __init__(self, headers: Sequence[tuple[str, str]]) -> None:
        self._ready = b"".join(field_line(name, value) for name, value in headers if "{" not in value)
        self._templates = [(name, value) for name, value in headers if "{" in value]

    def lines(self, variables: Variables) -> bytes:
        """Return the lines for one message."""
        if not self._templates:
            return self._ready
        filled = [field_line(name, _filled(value, variables)) for name, value in self._templates]
        return self._ready + b"".join(filled)


@dataclass(eq=False, slots=True)
class Route:
    """A compiled route."""

    id: str
    order: int
    target: Target
    public: bool
    """Whether it can be used without a token."""
    scope: str | None
    """What the token must allow."""
    connect_timeout: float | None
    response_timeout: float | None
    """Seconds; None = the gateway's, inf = none."""
    actions: Actions
    definition: RouteDefinition
    request_lines: HeaderLines = field(init=False)
    response_lines: HeaderLines = field(init=False)
    limits: tuple[RateLimit, ...] = field(init=False)
    response_drop: frozenset[bytes] = field(init=False)
    """Names that don't go to the client."""

    def __post_init__(self) -> None:
        self.response_drop = HOP_BY_HOP | self.actions.response.drop
        self.request_lines = HeaderLines(self.actions.request.write)
        self.response_lines = HeaderLines(self.actions.response.write)
        self.limits = tuple(self.actions.limits)

    def forwarded_path(self, path: str, variables: Variables) -> str:
        """Return the path of the forwarded request."""
        for change in self.actions.path:
            path = change(path, variables)
        return path


@dataclass(frozen=True, slots=True)
class _Entry:
    rank: int
    route: Route
    pattern: PathPattern | None
    others: Sequence[Predicate]

    def matches(self, asked: Asked) -> bool:
        asked.variables = {}
        pattern = self.pattern
        if pattern is not None and pattern.match is not None:
            variables = pattern.match(asked.path)
            if variables is None:
                return False
            asked.variables = variables
        return not self.others or all(predicate(asked) for predicate in self.others)


class RouteTable:
    """Finds the route of a request. Immutable: a change of routes is a new table."""

    def __init__(self, definition: GatewayDefinition) -> None:
        """Compile the definition; raises ConfigError with every mistake."""
        problems: list[str] = []
        defaults = compile_filters(definition.default_filters, problems)
        self.routes: list[Route] = []
        entries: list[tuple[PathPattern | None, _Entry]] = []
        for rank, written in enumerate(sorted(definition.routes, key=lambda each: each.order)):
            entries += self._compile(rank, written, defaults, problems)
        self.trusted_proxies = _trusted(definition, problems)
        if problems:
            raise ConfigError(problems)
        self._tree = PathTree(entries, key=lambda entry: entry.rank)
        self._check_fallbacks()
        self.connect_timeout = definition.connect_timeout
        self.response_timeout = definition.response_timeout

    @property
    def breakers(self) -> frozenset[str]:
        """The names of the circuit breakers that routes have."""
        return frozenset(route.actions.breaker.name for route in self.routes if route.actions.breaker is not None)

    def find(self, asked: Asked) -> Route | None:
        """Return the first route whose conditions hold; sets the variables of its path."""
        for entry in self._tree.candidates(asked.path):
            if entry.matches(asked):
                return entry.route
        return None

    def _check_fallbacks(self) -> None:
        """Check that the path of each fallback has a route, whatever else that requires."""
        breakers = [route.actions.breaker for route in self.routes if route.actions.breaker is not None]
        wrong = [
            f"{each.where}: fallbackUri: no route is at {each.fallback}"
            for each in breakers
            if each.fallback is not None and not self._leads_somewhere(each.fallback.partition("?")[0])
        ]
        if wrong:
            raise ConfigError(wrong)

    def _leads_somewhere(self, path: str) -> bool:
        patterns = [entry.pattern for entry in self._tree.candidates(path)]
        return any(each is None or each.match is None or each.match(path) is not None for each in patterns)

    def _compile(
        self, rank: int, written: RouteDefinition, defaults: Sequence[Effect], problems: list[str]
    ) -> Iterator[tuple[PathPattern | None, _Entry]]:
        """Add the route of a definition; returns an entry for each of its patterns."""
        conditions = compile_conditions(written.predicates, problems)
        actions = Actions()
        for effect in (*defaults, *compile_filters(written.filters, problems)):
            effect(actions)
        route = _compiled(written, actions, problems)
        if route is None:
            return
        self.routes.append(route)
        for pattern in (None,) if conditions.paths is None else conditions.paths:
            yield pattern, _Entry(rank, route, pattern, conditions.others)


def _compiled(written: RouteDefinition, actions: Actions, problems: list[str]) -> Route | None:
    target = _target(written, problems)
    metadata = {canonical(key): value for key, value in written.metadata.items()}
    for key in written.metadata:
        if canonical(key) not in {canonical(known) for known in _METADATA_KEYS}:
            allowed = ", ".join(_METADATA_KEYS)
            problems.append(f"{written.where}.metadata.{key}: unknown key; allowed: {allowed}")
    public = str(metadata.get("public", False)).lower()
    if public not in ("true", "false"):
        problems.append(f"{written.where}.metadata.public: must be true or false, not {public!r}")
    scope = metadata.get("scope")
    if public == "true" and scope is not None:
        problems.append(f"{written.where}.metadata.scope: a public route has no scope")
    connect = _timeout(written, metadata, "connect-timeout", problems)
    response = _timeout(written, metadata, "response-timeout", problems)
    if target is None:
        return None
    return Route(
        id=written.id,
        order=written.order,
        target=target,
        public=public == "true",
        scope=None if scope is None else str(scope),
        connect_timeout=connect,
        response_timeout=response,
        actions=actions,
        definition=written,
    )


def _target(written: RouteDefinition, problems: list[str]) -> Target | None:
    found = _URI.fullmatch(written.uri)
    if found is None or (found[1] == "lb" and found[3]) or int(found[3] or 0) > 65535:
        problems.append(f"{written.where}.uri: {written.uri!r} must be lb://service or http://host:port")
        return None
    if found[1] == "lb":
        return Target(found[2].lower(), "", 0)
    return Target(None, found[2].strip("[]"), int(found[3] or 80))


def _trusted(definition: GatewayDefinition, problems: list[str]) -> re.Pattern[str] | None:
    if not definition.trusted_proxies:
        return None
    try:
        return re.compile(definition.trusted_proxies)
    except re.error as error:
        problems.append(f"trusted-proxies: {definition.trusted_proxies!r} isn't a regular expression: {error}")
        return None


def _timeout(written: RouteDefinition, metadata: dict[str, object], key: str, problems: list[str]) -> float | None:
    """Seconds; a negative number switches the time-out off, as in Spring."""
    value = metadata.get(canonical(key))
    if value is None:
        return None
    try:
        found = seconds(value)
    except ValueError as error:
        problems.append(f"{written.where}.metadata.{key}: {error}")
        return None
    return float("inf") if found < 0 else found


def _filled(template: str, variables: Variables) -> str:
    value = template
    for name, text in variables.items():
        value = value.replace("{" + name + "}", text)
    return "".join(c for c in value if " " <= c <= "~")
