"""The trace of a request (W3C `traceparent`)."""

from backstay.asgi.types import App, Receive, Scope, Send
from backstay.telemetry.trace import TraceContext, use


class Trace:
    """Middleware: logs, events and calls made inside belong to the request's trace."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with use(TraceContext.below(dict(scope["headers"]).get(b"traceparent"))):
            await self.app(scope, receive, send)


__all__ = ["Trace"]
