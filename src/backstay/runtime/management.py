"""The management port of a process that serves no API: health, metrics, and what is running."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from backstay import __version__
from backstay.http import HttpReply, HttpRequest, not_found, only_read
from backstay.runtime.health import Health, Readiness

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
                health = await self._readiness.look()
                return _json(health, 200 if health.status == "UP" else 503)
            case "/metrics":
                return HttpReply(200, self._metrics(), content_type=METRICS_TYPE)
            case "/info":
                return _json(self._info)
        return not_found(request)


def _json(body: object, status: int = 200) -> HttpReply:
    return HttpReply(status, msgspec.json.encode(body), content_type="application/json")


__all__ = ["METRICS_TYPE", "ManagementPages"]
