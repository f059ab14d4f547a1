"""A bound of the requests that are answered concurrently."""

from backstay.asgi.replies import refusal
from backstay.asgi.types import App, Receive, Scope, Send
from backstay.http.problems import Unavailable
from backstay.resilience import STOP_HEADER

MAX_REQUESTS = 1000
"""Requests being answered concurrently; more are refused."""


def overloaded() -> Unavailable:
    """Return the refusal of a request beyond the bound; `x-do-not-retry` keeps callers from repeating it."""
    return Unavailable("too many requests are being answered at this moment", headers={STOP_HEADER: "1"})


class LoadShedding:
    """Middleware: requests beyond `most` concurrent ones are answered 503 without reaching the application."""

    def __init__(self, app: App, *, most: int = MAX_REQUESTS) -> None:
        self.app = app
        self.most = most
        self.active = 0
        """Requests being answered now."""
        self.shed = 0
        """Requests refused because too many were being answered."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.active >= self.most:
            self.shed += 1
            await refusal(overloaded(), scope).send(send)
            return
        self.active += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.active -= 1


__all__ = ["MAX_REQUESTS", "LoadShedding", "overloaded"]
