"""Composition of the gateway."""

import os
from collections.abc import Mapping

from backstay.errors import ConfigError
from backstay.gateway import RouteTable, read_definition_file
from shop.gateway.config import GatewaySettings
from shop.gateway.service import GatewayProcess


def settings(environ: Mapping[str, str]) -> GatewaySettings:
    """Return the settings that the environment asks for; raises `ConfigError`."""
    return GatewaySettings.read(environ)


def build(settings: GatewaySettings) -> GatewayProcess:
    """Return the gateway, ready to run; raises `ConfigError` with every mistake in the routes."""
    return GatewayProcess(settings, routes(settings))


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
