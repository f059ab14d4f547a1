"""The contents of the registry, read over its own REST interface as any client does."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from backstay.dev.web import HttpError, Web

LOOK_TIMEOUT = 2.0  # seconds
UP = "UP"


@dataclass(frozen=True, slots=True)
class Instance:
    """One registered instance, its application's name in lower case."""

    app: str
    status: str
    address: str


async def instances(discovery: Web) -> list[Instance]:
    """Everything registered; empty while the registry doesn't answer."""
    try:
        reply = await discovery.call("GET", "/eureka/apps", timeout=LOOK_TIMEOUT)
    except HttpError:
        return []
    if reply.status != 200 or not isinstance(reply.body, dict):
        return []
    apps = _listed(reply.body.get("applications", {}).get("application"))
    return [_read(app["name"], entry) for app in apps for entry in _listed(app.get("instance"))]


async def missing(discovery: Web, wanted: tuple[str, ...]) -> list[str]:
    """Return the applications without an instance that is up; one named twice needs two."""
    up = Counter(instance.app for instance in await instances(discovery) if instance.status == UP)
    return list((Counter(wanted) - up).elements())


async def is_ready(instance: Instance) -> bool:
    """Return whether the instance's own readiness check succeeds."""
    return await _is_well(instance, "/health/ready")


async def is_alive(instance: Instance) -> bool:
    """Return whether the instance answers: a registry lists dead ones until their lease expires."""
    return await _is_well(instance, "/health/live")


async def _is_well(instance: Instance, path: str) -> bool:
    try:
        async with Web(instance.address) as web:
            return (await web.call("GET", path, timeout=LOOK_TIMEOUT)).status == 200
    except HttpError:
        return False


def _read(app: str, entry: dict[str, Any]) -> Instance:
    port = entry.get("port", {})
    number = port.get("$") if isinstance(port, dict) else port
    return Instance(app.lower(), entry.get("status", "UNKNOWN"), f"http://{entry.get('ipAddr')}:{number}")


def _listed(value: Any) -> list[Any]:
    """Eureka writes a list of one as its only item."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
