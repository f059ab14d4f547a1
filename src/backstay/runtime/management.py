"""The management port: health, metrics, and what is running, beside the port that a process serves or without one."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from backstay import __version__
from backstay.http import HttpReply, HttpRequest, HttpServer, not_found, only_read
from backstay.http.application import Handler
from backstay.runtime.composition import Composition
from backstay.runtime.health import Health, Readiness
from backstay.runtime.listening import listening
from backstay.runtime.settings import ManagementSettings

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ManagementPages:
    """Answers `/health/live`, `/health/ready`, `/health`, `/metrics` and `/info`; give it to `HttpServer`."""

    def __init__(self, readiness: Readiness, *, metrics: Callable[[], bytes], info: Mapping[str, Any]) -> None:
        self._readiness = readiness
        self._metrics = metrics
        self._info = {**info, "backstay": __version__}

    async def __call__(self, request: HttpRequest) -> HttpReply:
        """Answer a request."""
        match request.path:
            case "/health" | "/health/ready" | "/health/live" | "/metrics" | "/info" if refusal := only_read(request):
                return refusal
            case "/health/live":
                return _json(Health("UP"))
            case "/health" | "/health/ready":
                health = await self._readiness.check()
                return _json(health, 200 if health.status == "UP" else 503)
            case "/metrics":
                return HttpReply(200, self._metrics(), content_type=METRICS_TYPE)
            case "/info":
                return _json(self._info)
        return not_found(request)


async def enter_management(parts: Composition, settings: ManagementSettings, pages: Handler) -> HttpServer:
    """Serve `pages` on the management port from now on; raises ConfigError if it can't be had."""
    host, port = settings.management_host, settings.management_port
    with listening(host, port, host_name="MANAGEMENT_HOST", port_name="MANAGEMENT_PORT"):
        return await parts.enter("management", HttpServer(pages, host, port))


def _json(body: object, status: int = 200) -> HttpReply:
    return HttpReply(status, msgspec.json.encode(body), content_type="application/json")


__all__ = ["METRICS_TYPE", "ManagementPages", "enter_management"]
