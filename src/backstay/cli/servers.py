"""`backstay gateway`, `registry` and `relay`: processes of their own, composed by `backstay.runtime`."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from backstay.cli.common import address, reach, reported
from backstay.cli.options import SettingsOptions, log_format
from backstay.errors import ConfigError

if TYPE_CHECKING:
    from backstay.runtime.gateway import GatewayProcess, GatewaySettings

SECRETS = ("kafka_sasl_password", "kafka_options")
"""Settings that are no options: every user of the machine can read a command line."""


def gateway_options() -> SettingsOptions:
    """Return the options of `backstay gateway`."""
    from backstay.runtime.gateway import GatewaySettings

    names = {
        "gateway_port": "--port",
        "discovery_url": "--eureka",
        "token_issuer": "--issuer",
        "token_audience": "--audience",
        "jwks_url": "--jwks",
    }
    return SettingsOptions(GatewaySettings, names=names, skip=SECRETS)


def registry_options() -> SettingsOptions:
    """Return the options of `backstay registry`."""
    from backstay.runtime.registry import RegistrySettings

    names = {"discovery_port": "--port", "registry_private_reads": "--private-reads", "open_registry": "--open"}
    return SettingsOptions(RegistrySettings, names=names, skip=["registry_credentials"])


def relay_options() -> SettingsOptions:
    """Return the options of `backstay relay`."""
    from dataclasses import fields

    from backstay.runtime.relay import RelaySettings

    own = [field.name for field in fields(RelaySettings) if field.name.startswith("relay_")]
    names = {name: f"--{name.removeprefix('relay_').replace('_', '-')}" for name in own}
    names["kafka_flavor"] = "--flavor"
    skip = ["database_url", "kafka", *SECRETS]
    return SettingsOptions(RelaySettings, names=names, skip=skip, arguments=["dsn", "kafka"])


def gateway(file: Path, profile: str = "", open: bool = False, *, given: Mapping[str, str]) -> None:  # noqa: A002
    """Serve the routes of a Spring Cloud Gateway FILE (application.yml or .properties), until SIGTERM.

    --eureka is the address of the registry for lb:// routes, such as http://127.0.0.1:8761/eureka, where the gateway
    registers, too; --profile is a list of active profiles, separated by commas, in place of SPRING_PROFILES_ACTIVE and
    of the file's own. Routes that aren't public want an access token of --issuer for --audience, signed by a key
    found at --jwks (fixed addresses, separated by commas, tried in turn; default: the issuer's /.well-known/jwks.json);
    --open makes every route public. Health, metrics and routes are on --management-port.
    """
    from backstay.runtime.gateway import GatewaySettings
    from backstay.runtime.program import load

    environ = {**os.environ, **log_format(os.environ), **given}
    issuer = environ.get("TOKEN_ISSUER", "")
    if issuer.startswith(("http://", "https://")) and not environ.get("JWKS_URL"):
        environ["JWKS_URL"] = issuer.rstrip("/") + "/.well-known/jwks.json"
    with reported(), gateway_options().named(given, os.environ):
        build = _GatewayOf(file, profile, open)
        load(lambda: GatewaySettings.read(environ), build).execute()


class _GatewayOf:
    """Makes the gateway of a file."""

    def __init__(self, file: Path, profile: str, is_open: bool) -> None:
        self._file = file
        self._profiles = [name for part in profile.split(",") if (name := part.strip())] or None
        self._open = is_open

    def __call__(self, settings: "GatewaySettings") -> "GatewayProcess":
        from backstay.gateway import RouteTable, read_definition_file
        from backstay.resilience import Registry as Policies
        from backstay.runtime.gateway import GatewayProcess

        # None leaves the profiles to the environment and the file.
        table = RouteTable(read_definition_file(self._file, os.environ, profiles=self._profiles))
        if self._open:
            for route in table.routes:
                route.public = True
        policies = Policies.from_yaml(self._file, only=table.breakers, profiles=self._profiles)
        return GatewayProcess(settings, table, policies=policies)


def registry(credentials: Path | None = None, *, given: Mapping[str, str]) -> None:
    """Serve a Eureka registry, until SIGTERM.

    CREDENTIALS is a file with the users that may register, else they are read from REGISTRY_CREDENTIALS: a JSON array
    such as [{"user": "orders", "passwords": ["…"], "apps": ["orders"]}]. --private-reads requires one also for reading.
    Without credentials only a loopback HOST is served, unless --open lets everybody register. Health and metrics are on
    the same port.
    """
    from backstay.runtime.program import load
    from backstay.runtime.registry import RegistryProcess, RegistrySettings

    environ = {**os.environ, **log_format(os.environ), **given}
    named = [*given, *(["REGISTRY_CREDENTIALS"] if credentials is not None else [])]
    flag = "--credentials" if credentials is None else f"--credentials {credentials}"
    with reported(), registry_options().named(named, os.environ, registry_credentials=flag):
        if credentials is not None:
            environ["REGISTRY_CREDENTIALS"] = _read(credentials)
        load(lambda: RegistrySettings.read(environ), RegistryProcess).execute()


def relay(dsn: str = "", kafka: str = "", *, given: Mapping[str, str]) -> None:
    """Publish the outbox of the database DSN to KAFKA (host:port), until SIGTERM.

    Both may be left out where DATABASE_URL and KAFKA are set; the DSN of every other command, too. --source is what
    events say they come from (/service/<database>); --lease is seconds until a dead relay is replaced; --strict
    publishes by transactions; --wal reads the write-ahead log instead of polling. --table is an outbox table of
    another product, of --shape debezium or quarkus. Health and metrics are on --management-port.

    Secrets of TLS and SASL come from the environment: KAFKA_SASL_PASSWORD, and KAFKA_OPTIONS, a JSON object of further
    librdkafka options.
    """
    from backstay.runtime.program import load
    from backstay.runtime.relay import RelayProcess, RelaySettings

    environ = {**os.environ, **log_format(os.environ), **given}
    environ |= {name: text for name, text in (("DATABASE_URL", dsn), ("KAFKA", address(kafka))) if text}
    environ["KAFKA"] = address(environ.get("KAFKA", ""))
    arguments = {"database_url": "the argument DSN", "kafka": "the argument KAFKA"}
    named = [*given, *(["DATABASE_URL"] if dsn else []), *(["KAFKA"] if kafka else [])]
    with reported(), relay_options().named(named, os.environ, **arguments):
        process = load(lambda: RelaySettings.read(environ), RelayProcess)
        for place in (process.settings.database_url, process.settings.kafka):
            asyncio.run(reach(place, connect=False))
        process.execute()


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--credentials {file}: {getattr(error, 'strerror', None) or error}") from error
