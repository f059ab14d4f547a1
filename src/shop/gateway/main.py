"""Composition of the gateway."""

import os
from collections.abc import Mapping
from typing import Any

from backstay import resilience as r
from backstay.errors import ConfigError
from backstay.gateway import RouteTable, read_definition_file
from backstay.messaging import event_spec
from backstay.runtime.gateway import GatewayProcess
from shop.contracts.users import SessionRevoked
from shop.gateway.config import GatewaySettings
from shop.kernel.resilience import Seconds, policies


def settings(environ: Mapping[str, str]) -> GatewaySettings:
    """Return the settings that the environment asks for; raises `ConfigError`."""
    return GatewaySettings.read(environ)


def build(settings: GatewaySettings, **parts: Any) -> GatewayProcess:
    """Return the gateway, ready to run; raises `ConfigError` with every mistake in the routes.

    `parts` are those of `GatewayProcess` in place of what the settings name: `registry`, `broker`.
    """
    table = routes(settings)
    topic = event_spec(SessionRevoked).topic
    return GatewayProcess(settings, table, policies=breakers(settings, table), revocations_topic=topic, **parts)


def routes(settings: GatewaySettings) -> RouteTable:
    """Return the compiled routes. Placeholders in the file see the settings first, then the environment."""
    given = {
        "RATE_LIMIT_PER_SECOND": f"{settings.rate_limit_per_second:.10g}",
        "RATE_LIMIT_BURST": f"{settings.rate_limit_burst:.10g}",
        "MAX_BODY": str(settings.max_body),
    }
    try:
        return RouteTable(read_definition_file(settings.routes, {**os.environ, **given}))
    except ConfigError as error:
        raise ConfigError([f"ROUTES: {problem}" for problem in error.problems]) from None


def breakers(settings: GatewaySettings, routes: RouteTable) -> r.Registry:
    """Return the circuit breakers that the routes name, as `resilience.yaml` has them; raises ConfigError."""
    values = {name: value for name, value in vars(settings).items() if name.startswith("service_")}
    values["service_wait_open"] = Seconds(settings.service_wait_open)
    return policies(routes.breakers, values, {})
