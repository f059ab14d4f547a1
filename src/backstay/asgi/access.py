"""One log line a request."""

from time import perf_counter
from typing import Any

from backstay.asgi.identity import STATE
from backstay.asgi.types import App, Message, Receive, Scope, Send
from backstay.telemetry.access import access_log
from backstay.telemetry.trace import current

GONE = 499
"""Status in logs and metrics of a request whose client left before there was an answer."""


class AccessLog:
    """Middleware: writes a line for each request when it is answered, in the form that services of the kit write."""

    def __init__(self, app: App, *, service: str, format: str = "json") -> None:  # noqa: A002
        """`service` names the program; `format` is `json` (to stdout) or `console` (to the logger)."""
        self.app = app
        self._log = access_log(service, format)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = perf_counter(), GONE

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Exception:
            status = 500 if status == GONE else status
            raise
        finally:
            self._write(scope, status, perf_counter() - started)

    def _write(self, scope: Scope, status: int, seconds: float) -> None:
        caller: Any = scope.get("state", {}).get(STATE)
        context = current()
        self._log.write(
            scope["method"],
            scope["path"],
            getattr(scope.get("route"), "path", ""),
            status,
            seconds,
            "" if context is None else context.trace_id,
            getattr(caller, "id", None),
        )


__all__ = ["GONE", "AccessLog"]
