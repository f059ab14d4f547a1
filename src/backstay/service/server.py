"""The HTTP server of a service: ASGI on a listening socket, requests read by the same rules as in the gateway."""

import asyncio
import contextlib
import socket
import sys
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self

from backstay.errors import ConfigError
from backstay.http.framing import Limits
from backstay.http.timers import Ticker
from backstay.service.connection import Connection
from backstay.service.exchange import Exchange

BACKLOG = 2048
"""Connections that may wait to be accepted."""
HEAD_TIMEOUT = 10.0
"""Seconds in which a connection must send its (next) request head."""
MAX_HEAD = 64 * 1024
"""Bytes of a request head."""
LIMITS = Limits(head=MAX_HEAD, fields=200, target=16 * 1024, body=sys.maxsize)
"""What is taken of a request; more than the gateway takes, which adds to what it forwards. Bodies have a limit for
each route."""
LAST_WORDS = 1.0
"""Seconds for answers that are written to leave, after all requests are over or given up."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `ConfigError` if the address can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ConfigError(f"HOST={host!r} PORT={port}: can't listen there ({error.strerror or error})") from error
    return listening


class Server:
    """Serves an ASGI application on a bound socket between enter and exit.

    Exit: accept nothing new, close idle connections, let requests in flight finish for at most `drain` seconds, then
    cancel them.
    """

    def __init__(self, app: Any, listening: socket.socket, *, keep_alive: float, drain: float) -> None:
        self.app = app
        self.port: int = listening.getsockname()[1]
        self.limits = LIMITS
        self.context = copy_context()
        self.keep_alive = keep_alive
        self.draining = False
        self._listening = listening
        self._drain = drain
        self._ticker = Ticker()
        self._connections: set[Connection] = set()
        self._exchanges: set[Exchange] = set()
        self._quiet = asyncio.Event()
        self._hurried = False
        self._over = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.context = copy_context()
        self._server = await loop.create_server(
            lambda: Connection(self, loop, HEAD_TIMEOUT), sock=self._listening, backlog=BACKLOG
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self.draining = True
        for connection in list(self._connections):
            connection.drain()
        await self._wait_until_quiet(self._drain)
        # What the drain gave up must not go on with parts that are about to be stopped.
        left = [exchange.task for exchange in self._exchanges if exchange.task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self._hurried = False
        await self._wait_until_quiet(LAST_WORDS)
        for connection in list(self._connections):
            connection.abort()
        self._ticker.close()
        self._over.set()

    def hurry(self) -> None:
        """Wait for no request any longer."""
        self._hurried = True
        self._quiet.set()

    async def ended(self) -> None:
        """Return when the server is over."""
        await self._over.wait()

    async def _wait_until_quiet(self, seconds: float) -> None:
        """Until every connection and every request is over, or we were told to hurry."""
        self._quiet.clear()
        if self._hurried or not (self._connections or self._exchanges):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._quiet.wait()

    # -- for connections
    def opened(self, connection: Connection) -> None:
        """A connection was accepted."""
        self._connections.add(connection)
        self._ticker.add(connection)

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self._ticker.discard(connection)
        self._look_whether_quiet()

    def began(self, exchange: Exchange) -> None:
        """A request is being answered."""
        self._exchanges.add(exchange)

    def over(self, exchange: Exchange) -> None:
        """Its task is over."""
        self._exchanges.discard(exchange)
        self._look_whether_quiet()

    def _look_whether_quiet(self) -> None:
        if self.draining and not self._connections and not self._exchanges:
            self._quiet.set()


__all__ = ["BACKLOG", "HEAD_TIMEOUT", "LIMITS", "MAX_HEAD", "Server", "bind"]
