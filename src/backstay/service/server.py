"""The HTTP server of a service: ASGI on a listening socket, requests read by the same rules as in the gateway."""

import asyncio
import socket
import sys
from dataclasses import replace
from types import TracebackType
from typing import Self

from backstay.asgi.types import App
from backstay.errors import ConfigError
from backstay.http.application import reply_bytes
from backstay.http.errors import FramingError
from backstay.http.framing import Limits, RequestHead
from backstay.http.inbound import InboundConnection
from backstay.http.listener import Bounds, Listener, ListenerStatistics
from backstay.http.phases import Timeouts
from backstay.http.problems import malformed
from backstay.service.exchange import Exchange

HEAD_TIMEOUT = 10.0
"""Seconds in which a connection must send its (next) request head."""
TIMEOUTS = Timeouts(head=HEAD_TIMEOUT)
"""Of every phase but idle, which is the service's setting."""
MAX_HEAD = 64 * 1024
"""Bytes of a request head."""
LIMITS = Limits(head=MAX_HEAD, fields=200, target=16 * 1024, body=sys.maxsize)
"""Largest request accepted; larger than the gateway's, which adds headers to what it forwards. Bodies have a limit for
each route."""


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. Raises `ConfigError` if the address can't be had."""
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

    def __init__(
        self,
        app: App,
        listening: socket.socket,
        *,
        keep_alive: float,
        drain: float,
        timeouts: Timeouts | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        """`timeouts` replaces the usual ones, with `keep_alive` among them."""
        self.app = app
        self.port: int = listening.getsockname()[1]
        self.listener = Listener(
            lambda: _Connection(self),
            limits=LIMITS,
            timeouts=timeouts or replace(TIMEOUTS, idle=keep_alive),
            bounds=bounds,
        )
        self._listening = listening
        self._drain = drain
        self._over = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.listener.listen(sock=self._listening)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if not self.listener.stop():
            return
        await self.listener.finished(self._drain)
        # What the drain gave up must not go on with parts that are about to be stopped.
        await self.listener.cancel()
        await self.listener.abort()
        self._over.set()

    def stop_draining(self) -> None:
        """Cut the requests in flight instead of waiting for them."""
        self.listener.stop_draining()

    async def ended(self) -> None:
        """Return when the server has stopped."""
        await self._over.wait()

    def statistics(self) -> ListenerStatistics:
        """Return the connections now, and the number refused."""
        return self.listener.statistics()

    @property
    def _connections(self) -> set[InboundConnection]:
        return self.listener.connections


class _Connection(InboundConnection):
    """One client of a service."""

    __slots__ = ("_addresses", "_server")

    def __init__(self, server: Server) -> None:
        super().__init__(server.listener)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer, own = (transport.get_extra_info(name) for name in ("peername", "sockname"))
        self._addresses = (tuple(peer[:2]) if peer else None, tuple(own[:2]) if own else None)
        super().connection_made(transport)

    def new_exchange(self, head: RequestHead) -> Exchange:
        return Exchange(self, self._server.listener, head, self._server.app, self._addresses)

    def refusal(self, error: FramingError) -> bytes:
        return reply_bytes(malformed(error), keep_alive=False, head_only=False)


__all__ = ["HEAD_TIMEOUT", "LIMITS", "MAX_HEAD", "TIMEOUTS", "Server", "bind"]
