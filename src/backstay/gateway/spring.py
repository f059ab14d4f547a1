"""Reads the routes of a Spring Cloud Gateway `application.yml`. Every mistake is reported at once, with its key.

Nothing is skipped in silence: a key that this gateway doesn't know is a mistake too, because a limit or a header that
somebody wrote down and nobody applies is worse than a start that fails.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from backstay.errors import ConfigError
from backstay.gateway.definitions import GatewayDefinition, RouteDefinition, Step
from backstay.spring import canonical, lookup, read_document, seconds

SECTIONS = (
    ("spring", "cloud", "gateway", "server", "webflux"),
    ("spring", "cloud", "gateway"),
)
"""Where the gateway's keys are: Spring Cloud 2025.0 and later, and before."""

_GATEWAY_KEYS = ("routes", "default-filters", "httpclient", "trusted-proxies", "discovery", "enabled", "server")
_ROUTE_KEYS = ("id", "uri", "predicates", "filters", "metadata", "order", "enabled")
_CLIENT_KEYS = ("connect-timeout", "response-timeout")


def read_definition(
    text: str, environ: Mapping[str, str], *, profiles: frozenset[str] = frozenset()
) -> GatewayDefinition:
    """What the file says about the gateway; raises ConfigError with every mistake."""
    tree = read_document(text, environ, profiles=profiles)
    for path in SECTIONS:
        section = lookup(tree, *path)
        if isinstance(section, Mapping) and lookup(section, "routes") is not None:
            return _Reader(".".join(path)).read(section)
    raise ConfigError(f"no routes: neither {' nor '.join('.'.join((*path, 'routes')) for path in SECTIONS)} is there")


class _Reader:
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._problems: list[str] = []

    def read(self, section: Mapping[str, Any]) -> GatewayDefinition:
        self._check_keys(self._prefix, section, _GATEWAY_KEYS)
        if str(lookup(section, "discovery", "locator", "enabled")).lower() == "true":
            self._problem("discovery.locator.enabled", "there is no discovery locator; write a route for each service")
        client = self._mapping("httpclient", lookup(section, "httpclient"))
        self._check_keys(f"{self._prefix}.httpclient", client, _CLIENT_KEYS)
        definition = GatewayDefinition(
            routes=self._routes(lookup(section, "routes")),
            default_filters=self._steps("default-filters", lookup(section, "default-filters"), "filter"),
            connect_timeout=self._duration("httpclient.connect-timeout", lookup(client, "connect-timeout")),
            response_timeout=self._duration("httpclient.response-timeout", lookup(client, "response-timeout")),
            trusted_proxies=lookup(section, "trusted-proxies"),
        )
        if self._problems:
            raise ConfigError(self._problems)
        return definition

    def _routes(self, given: object) -> list[RouteDefinition]:
        if not isinstance(given, list) or not given:
            self._problem("routes", "must be a list of at least one route")
            return []
        routes = [route for i, each in enumerate(given) if (route := self._route(f"routes[{i}]", each, i)) is not None]
        seen: set[str] = set()
        for route in routes:
            if route.id in seen:
                self._problem(route.where.removeprefix(f"{self._prefix}."), f"the id {route.id!r} is there twice")
            seen.add(route.id)
        return routes

    def _route(self, where: str, given: object, position: int) -> RouteDefinition | None:
        if not isinstance(given, Mapping):
            self._problem(where, f"must be a mapping with the keys {', '.join(_ROUTE_KEYS)}")
            return None
        self._check_keys(f"{self._prefix}.{where}", given, _ROUTE_KEYS)
        if str(lookup(given, "enabled")).lower() == "false":
            return None
        uri = lookup(given, "uri")
        if not isinstance(uri, str) or not uri:
            self._problem(f"{where}.uri", "is missing; lb://service or http://host:port")
        return RouteDefinition(
            id=str(lookup(given, "id") or f"route-{position}"),
            uri=str(uri or ""),
            where=f"{self._prefix}.{where}",
            predicates=self._steps(f"{where}.predicates", lookup(given, "predicates"), "predicate"),
            filters=self._steps(f"{where}.filters", lookup(given, "filters"), "filter"),
            metadata=self._mapping(f"{where}.metadata", lookup(given, "metadata")),
            order=self._integer(f"{where}.order", lookup(given, "order")),
        )

    def _steps(self, where: str, given: object, kind: str) -> Sequence[Step]:
        if given is None:
            return ()
        if not isinstance(given, list):
            self._problem(where, f"must be a list of {kind}s")
            return ()
        return [step for i, each in enumerate(given) if (step := self._step(f"{where}[{i}]", each, kind)) is not None]

    def _step(self, where: str, given: object, kind: str) -> Step | None:
        if isinstance(given, str):
            name, _, args = given.partition("=")
            return Step(name.strip(), _tokens(args), f"{self._prefix}.{where}")
        if isinstance(given, Mapping) and isinstance(lookup(given, "name"), str):
            self._check_keys(f"{self._prefix}.{where}", given, ("name", "args"))
            return Step(
                lookup(given, "name"), self._mapping(f"{where}.args", lookup(given, "args")), f"{self._prefix}.{where}"
            )
        self._problem(where, f"must be a {kind} as `Name=value,value` or as a mapping with name and args")
        return None

    def _mapping(self, where: str, given: object) -> Mapping[str, Any]:
        if given is None:
            return {}
        if isinstance(given, Mapping):
            return given
        self._problem(where, f"must be a mapping, not {given!r}")
        return {}

    def _integer(self, where: str, given: object) -> int:
        try:
            return int(str(given)) if given is not None else 0
        except ValueError:
            self._problem(where, f"must be a whole number, not {given!r}")
            return 0

    def _duration(self, where: str, given: object) -> float | None:
        try:
            return None if given is None else seconds(given)
        except ValueError as error:
            self._problem(where, str(error))
            return None

    def _check_keys(self, where: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
        names = {canonical(key) for key in known}
        for key in given:
            if canonical(key) not in names:
                self._problems.append(f"{where}.{key}: unknown key; allowed: {', '.join(known)}")

    def _problem(self, where: str, text: str) -> None:
        self._problems.append(f"{self._prefix}.{where}: {text}")


def _tokens(args: str) -> list[str]:
    return [token.strip() for token in args.split(",") if token.strip()]
