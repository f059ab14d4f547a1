"""The contents of a configuration file before it is compiled: routes as names and arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    """One predicate or filter: its name and its arguments, by name or, in the shortcut form, in order."""

    name: str
    args: Mapping[str, Any] | Sequence[str]
    where: str
    """The key in the file, for messages."""


@dataclass(frozen=True, slots=True)
class RouteDefinition:
    """One route as written."""

    id: str
    uri: str
    where: str
    predicates: Sequence[Step] = ()
    filters: Sequence[Step] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    order: int = 0


@dataclass(frozen=True, slots=True)
class GatewayDefinition:
    """The gateway's part of a configuration file."""

    routes: Sequence[RouteDefinition]
    default_filters: Sequence[Step] = ()
    connect_timeout: float | None = None
    """Seconds; None keeps the gateway's own."""
    response_timeout: float | None = None
    """Seconds; None keeps the gateway's own."""
    trusted_proxies: str | None = None
    """Regular expression of peer addresses whose forwarding headers are believed."""
