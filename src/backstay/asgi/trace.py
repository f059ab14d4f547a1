"""The trace of a request (W3C `traceparent`)."""

from backstay.asgi.types import App, Receive, Scope, Send
from backstay.telemetry.trace import TraceContext, use


def context_of(traceparent: bytes | None) -> TraceContext:
    """Return the position of a request in its trace: a child of the caller's, or the first of a new trace."""
    parent = TraceContext.parse(traceparent)
    return TraceContext.new() if parent is None else parent.child()


class Trace:
    """Middleware: logs, events and calls made inside belong to the request's trace."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with use(context_of(dict(scope["headers"]).get(b"traceparent"))):
            await self.app(scope, receive, send)


__all__ = ["Trace", "context_of"]
