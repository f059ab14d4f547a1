"""The routes that every service has: health, metrics, info, and its own description."""

import platform
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from backstay import __version__
from backstay.asgi.answers import Answer
from backstay.runtime.health import Health, Readiness
from backstay.service.routing import Route, get

HTML = "text/html; charset=utf-8"


class Info(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is running here: the service's own version, if it has one, and the library's."""

    name: str
    version: str = ""
    backstay: str
    python: str
    roles: list[str]
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the system routes report."""

    name: str
    version: str
    roles: frozenset[str]
    routes: Sequence[Route]
    readiness: Readiness
    metrics: Callable[[], bytes]


def system_routes(facts: Facts) -> list[Route]:
    """Public routes, left out of the OpenAPI document."""
    return [*_health(facts.readiness), *_about(facts), *_documents(facts)]


def _health(readiness: Readiness) -> list[Route]:
    @get("/health/live", public=True, hidden=True)
    async def live() -> Health:
        """Return whether the process answers at all."""
        return Health("UP")

    @get("/health/ready", public=True, hidden=True)
    async def ready() -> Answer[Health]:
        """Return whether the service can do its work, and what is missing if not."""
        health = await readiness.check()
        return Answer(health, 200 if health.status == "UP" else 503, {"Cache-Control": "no-store"})

    return [live, ready, get("/health", public=True, hidden=True)(ready.handler)]


def _about(facts: Facts) -> list[Route]:
    info = Info(
        name=facts.name,
        version=facts.version,
        backstay=__version__,
        python=platform.python_version(),
        roles=sorted(facts.roles),
        started_at=datetime.now(UTC),
    )

    @get("/info", public=True, hidden=True)
    async def show_info() -> Info:
        """Return what is running here."""
        return info

    @get("/metrics", public=True, hidden=True)
    async def metrics() -> Answer[bytes]:
        """Return the metrics in Prometheus' text form."""
        return Answer(facts.metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    return [show_info, metrics]


def _documents(facts: Facts) -> list[Route]:
    made: dict[str, bytes] = {}

    def document() -> bytes:
        if "json" not in made:
            from backstay.service.openapi import openapi

            made["json"] = openapi(facts.name, facts.version or "unversioned", facts.routes)
        return made["json"]

    async def openapi_json() -> Answer[bytes]:
        return Answer(document(), headers={"Content-Type": "application/json"})

    async def docs() -> Answer[bytes]:
        from backstay.service.docs import page

        return Answer(page(facts.name, document()), headers={"Content-Type": HTML})

    places: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
        ("/openapi.json", openapi_json),
        (f"/api/v1/openapi/{facts.name}.json", openapi_json),
        ("/docs", docs),
        (f"/docs/{facts.name}", docs),
    ]
    return [get(path, public=True, hidden=True)(handler) for path, handler in places]  # type: ignore[type-var]


__all__ = ["Facts", "Info", "system_routes"]
