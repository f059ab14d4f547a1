"""Reads the routes of a Spring Cloud Gateway `application.yml`. Every mistake is reported at once, with its key.

Nothing is skipped in silence: a key that this gateway doesn't know is a mistake too, because a limit or a header that
somebody wrote down and nobody applies is worse than a start that fails.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from backstay.errors import ConfigError
from backstay.gateway.definitions import GatewayDefinition, RouteDefinition, Step
from backstay.spring import YAML, Configuration, Unresolved, canonical, lookup, seconds, text_of

OLD = ("spring", "cloud", "gateway")
NEW = ("server", "webflux")
SECTIONS = ((*OLD, *NEW), OLD)
"""Where the gateway's keys are: Spring Cloud 2025.0 and later, and before."""

_GATEWAY_KEYS = ("routes", "default-filters", "httpclient", "trusted-proxies", "discovery", "enabled", "server")
_ROUTE_KEYS = ("id", "uri", "predicates", "filters", "metadata", "order", "enabled")
_CLIENT_KEYS = ("connect-timeout", "response-timeout")
_GROUP = re.compile(r"\(\?<([A-Za-z][A-Za-z0-9]*)>")


def read_definition(
    text: str, environ: Mapping[str, str], *, profiles: Collection[str] | None = None, syntax: str = YAML
) -> GatewayDefinition:
    """Return the gateway's part of the text; raises ConfigError with every mistake.

    profiles: those active, in place of `spring.profiles.active`. syntax: `yaml` or `properties`.
    """
    return _definition(Configuration.read(text, environ, profiles=profiles, syntax=syntax))


def read_definition_file(
    file: str | Path, environ: Mapping[str, str], *, profiles: Collection[str] | None = None
) -> GatewayDefinition:
    """Return the gateway's part of a file and its profile files; raises ConfigError with every mistake."""
    return _definition(Configuration.read_file(file, environ, profiles=profiles))


def _definition(configuration: Configuration) -> GatewayDefinition:
    known = (*_GATEWAY_KEYS, *_ROUTE_KEYS, *_CLIENT_KEYS, *NEW)
    root = configuration.section(*OLD, known=known)
    if not isinstance(root, Mapping):
        root = {}
    newer = lookup(root, *NEW)
    older = [key for key in root if canonical(key) != "server"]
    if isinstance(newer, Mapping) and older:
        raise ConfigError(
            f"both {'.'.join(SECTIONS[0])} and {'.'.join((*OLD, older[0]))} are there; keep all keys in one of them"
        )
    server = lookup(root, "server")
    others = [key for key in server if canonical(key) != "webflux"] if isinstance(server, Mapping) else []
    if others:
        raise ConfigError(f"{'.'.join((*OLD, 'server', others[0]))}: unknown key; allowed: webflux")
    section, prefix = (newer, SECTIONS[0]) if isinstance(newer, Mapping) else (root, OLD)
    if lookup(section, "routes") is None:
        unknown = [key for key in section if canonical(key) not in map(canonical, _GATEWAY_KEYS)]
        seen = f"; unknown keys: {', '.join(unknown)}" if unknown else ""
        places = " nor ".join(".".join((*path, "routes")) for path in SECTIONS)
        raise ConfigError(f"no routes: neither {places} is there{seen}")
    return _Reader(configuration, ".".join(prefix)).read(section)


class _Reader:
    def __init__(self, configuration: Configuration, prefix: str) -> None:
        self._configuration = configuration
        self._prefix = prefix
        self._problems: list[str] = []

    def read(self, section: Mapping[str, Any]) -> GatewayDefinition:
        self._check_keys(self._prefix, section, _GATEWAY_KEYS)
        if not self._flag("enabled", lookup(section, "enabled"), True):
            self._problem("enabled", "is false: this gateway is switched off; remove the key, or don't start it")
        if self._flag("discovery.locator.enabled", lookup(section, "discovery", "locator", "enabled"), False):
            self._problem("discovery.locator.enabled", "there is no discovery locator; write a route for each service")
        client = self._mapping("httpclient", lookup(section, "httpclient"))
        self._check_keys(f"{self._prefix}.httpclient", client, _CLIENT_KEYS)
        definition = GatewayDefinition(
            routes=self._routes(lookup(section, "routes")),
            default_filters=self._steps("default-filters", lookup(section, "default-filters"), "filter"),
            connect_timeout=self._duration("httpclient.connect-timeout", lookup(client, "connect-timeout")),
            response_timeout=self._duration("httpclient.response-timeout", lookup(client, "response-timeout")),
            trusted_proxies=self._text("trusted-proxies", lookup(section, "trusted-proxies")),
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
        if not self._flag(f"{where}.enabled", lookup(given, "enabled"), True):
            return None
        uri = self._text(f"{where}.uri", lookup(given, "uri"))
        if not uri:
            self._problem(f"{where}.uri", "is missing; lb://service or http://host:port")
        return RouteDefinition(
            id=self._text(f"{where}.id", lookup(given, "id")) or f"route-{position}",
            uri=uri or "",
            where=f"{self._prefix}.{where}",
            predicates=self._steps(f"{where}.predicates", lookup(given, "predicates"), "predicate"),
            filters=self._steps(f"{where}.filters", lookup(given, "filters"), "filter"),
            metadata=self._resolved(
                f"{where}.metadata", self._mapping(f"{where}.metadata", lookup(given, "metadata")), ()
            ),
            order=self._integer(f"{where}.order", lookup(given, "order")),
        )

    def _steps(self, where: str, given: object, kind: str) -> Sequence[Step]:
        if given in (None, ""):
            return ()
        if isinstance(given, str):
            given = given.split(",")  # as Spring makes a list of one string
        if not isinstance(given, list):
            self._problem(where, f"must be a list of {kind}s")
            return ()
        return [step for i, each in enumerate(given) if (step := self._step(f"{where}[{i}]", each, kind)) is not None]

    def _step(self, where: str, given: object, kind: str) -> Step | None:
        keep = set(_GROUP.findall(str(given)))  # `${segment}` is the group, unless a property has that name
        if isinstance(given, str):
            name, _, args = str(self._resolved(where, given, keep)).partition("=")
            return Step(name.strip(), _tokens(args), f"{self._prefix}.{where}")
        if isinstance(given, Mapping) and isinstance(lookup(given, "name"), str):
            self._check_keys(f"{self._prefix}.{where}", given, ("name", "args"))
            name = str(self._resolved(f"{where}.name", lookup(given, "name"), ()))
            args = self._resolved(f"{where}.args", self._mapping(f"{where}.args", lookup(given, "args")), keep)
            return Step(name, args, f"{self._prefix}.{where}")
        self._problem(where, f"must be a {kind} as `Name=value,value` or as a mapping with name and args")
        return None

    def _resolved(self, where: str, value: Any, keep: Collection[str]) -> Any:
        """Return the value with placeholders replaced at every level; what has no value is a mistake."""
        if isinstance(value, Mapping):
            return {key: self._resolved(f"{where}.{key}", inner, keep) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._resolved(f"{where}[{at}]", inner, keep) for at, inner in enumerate(value)]
        try:
            return self._configuration.resolve(value, keep=keep)
        except Unresolved as error:
            self._problem(where, str(error))
            return value

    def _text(self, where: str, given: object) -> str | None:
        if isinstance(given, Mapping | list):
            self._problem(where, f"must be one value, not {given!r}")
            return None
        return None if given in (None, "") else text_of(self._resolved(where, given, ()))

    def _flag(self, where: str, given: object, default: bool) -> bool:
        text = self._text(where, given)
        if text is not None and text.lower() not in ("true", "false"):
            self._problem(where, f"must be true or false, not {text!r}")
        return default if text is None else text.lower() == "true"

    def _mapping(self, where: str, given: object) -> Mapping[str, Any]:
        if given in (None, ""):
            return {}
        if isinstance(given, Mapping):
            return given
        self._problem(where, f"must be a mapping, not {given!r}")
        return {}

    def _integer(self, where: str, given: object) -> int:
        text = self._text(where, given)
        try:
            return int(text) if text is not None else 0
        except ValueError:
            self._problem(where, f"must be a whole number, not {text!r}")
            return 0

    def _duration(self, where: str, given: object) -> float | None:
        text = self._text(where, given)
        try:
            return None if text is None else seconds(text)
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
