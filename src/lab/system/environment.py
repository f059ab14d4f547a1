"""The environment of each service's process, the same that a container would get."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backstay.dev.home import Home
from backstay.dev.ports import HOST
from lab.system.instances import service_of
from lab.system.options import Options
from shop.topology import SERVICES, Service

ISSUER = "https://auth.shop.example"
ADMIN_EMAIL = "admin@shop.example"
PACE = {"HEARTBEAT_INTERVAL": "5", "LEASE_DURATION": "15", "FETCH_INTERVAL": "2", "DRAIN_TIMEOUT": "5"}
"""Seconds; a registry of one machine notices a death sooner than one of a data centre has to."""
HEAP = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "1048576"}
"""Of the C library in each process. Few arenas: Kafka's many threads would otherwise have one each, mostly empty.
Blocks of a megabyte go back to the system when they are freed: else a hash of a password keeps its 19 MB for ever."""
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""For a process that hashes passwords: the 19 MB that come and go with each are then a few pages of 2 MB instead of
4,864 small ones, whose faults cost a fifth of the whole hash. A kernel or C library that can't do it ignores this."""
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LOG_LEVEL", "LOG_FORMAT")
"""Nothing else of the caller's environment reaches a service: what runs here does not depend on the shell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Addresses of the infrastructure."""

    bootstrap: str
    flavor: str
    smtp_url: str
    databases: Mapping[str, str] = field(repr=False)
    """URL by service."""


def environment(
    service: Service,
    *,
    home: Home,
    options: Options,
    resources: Resources,
    ports: Mapping[str, int],
    process: str = "",
) -> dict[str, str]:
    """Return the whole environment of one service's process, `process` its name if it isn't the service's own."""
    process = process or service.name
    told = {name: os.environ[name] for name in INHERITED if name in os.environ}
    port = str(ports.get(process, 0))
    told |= {"HOST": HOST, "PORT": port, **PACE}
    if service.port:
        told[service.port] = port
    if service.name != "discovery":
        told |= {"DISCOVERY_URL": _registry_url(home, service.name, ports["discovery"])}
        told |= {"JWKS_URL": _at_auth(home, ports, "/.well-known/jwks.json")}
    else:
        told |= {"REGISTRY_CREDENTIALS": _registrants(home)}
    told |= {"TOKEN_ISSUER": ISSUER, "PYTHONUNBUFFERED": "1", **HEAP}
    if service.database:
        told["DATABASE_URL"] = resources.databases[service.name]
    if service.kafka:
        told |= {"KAFKA": resources.bootstrap, "KAFKA_FLAVOR": resources.flavor}
        told |= options.kafka_settings
    if service.scopes:
        told["TOKEN_URL"] = _at_auth(home, ports, "/oauth2/token")
        told |= {"CLIENT_ID": service.name, "CLIENT_SECRET": home.secret(f"client.{service.name}")}
    if service.mail:
        told |= {"SMTP_URL": resources.smtp_url, **options.smtp_settings}
    if service.name == "auth":
        told |= _identities(home) | HUGE_PAGES
    if options.faults is not None:
        told["FAULTS_FILE"] = str(options.faults / process)
    return told | dict(options.settings)


def _registry_url(home: Home, name: str, port: int) -> str:
    """Return the registry with the service's own credential, which is bound to its name."""
    return f"http://{name}:{home.secret(f'registry.{name}')}@{HOST}:{port}/eureka"


def _registrants(home: Home) -> str:
    users = [
        {"user": service.name, "passwords": [home.secret(f"registry.{service.name}")], "apps": [service.name]}
        for service in SERVICES
        if service.name != "discovery"
    ]
    return json.dumps(users)


def _at_auth(home: Home, ports: Mapping[str, int], path: str) -> str:
    """Return the path at every instance of auth: fixed addresses, so that the registry can't choose an issuer."""
    there = [port for name, port in ports.items() if service_of(name) == "auth"]
    return ",".join(f"http://{HOST}:{port}{path}" for port in there or [home.port("auth")])


def _identities(home: Home) -> dict[str, str]:
    """Return the first admin, and the services that use tokens of their own."""
    clients = [
        {"id": service.name, "secret": home.secret(f"client.{service.name}"), "scope": " ".join(service.scopes)}
        | {"audience": " ".join(service.calls)}
        for service in SERVICES
        if service.scopes
    ]
    return {
        "ADMIN_EMAIL": ADMIN_EMAIL,
        "ADMIN_PASSWORD": home.secret("admin"),
        "CLIENTS": json.dumps(clients),
        "KEY_ENCRYPTION_SECRET": home.secret("signing-keys"),
    }


def python_path() -> Path:
    """Return the folder that holds the shop's package: services run wherever it is importable."""
    return Path(__file__).parents[2]
