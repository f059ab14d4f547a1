"""A small HTTP/1.1 server for lean parts: whole requests in, whole answers out, one at a time per connection.

It speaks plain HTTP on a socket of its own and knows no routes: the handler gets every request. A handler that raises
is a 500; its error is logged, never shown.
"""

import asyncio
import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache
from types import TracebackType
from typing import Self, cast

from backstay.http.errors import FramingError
from backstay.http.framing import Limits, RequestHead, RequestReader, field_line
from backstay.http.messages import Headers, HttpReply, HttpRequest, status_line
from backstay.http.problems import internal_error, malformed
from backstay.http.timers import Ticker

HEAD_SECONDS = 10.0  # from the first byte of a request to its end
IDLE_SECONDS = 60.0  # between requests
DRAIN_SECONDS = 10.0  # for requests in flight at the end
PIPELINE = 32  # requests waiting on one connection

Handler = Callable[[HttpRequest], HttpReply | Awaitable[HttpReply]]
log = logging.getLogger("backstay.http.server")


class HttpServer:
    """Serves `handler` on `host:port`; port 0 takes a free one, and `port` tells which after entering.

    Leaving closes in order: no new connections; idle connections close; requests in flight finish (at most
    `drain` seconds); what is left is cut. Leaving twice is harmless.
    """

    def __init__(
        self,
        handler: Handler,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        limits: Limits | None = None,
        head_timeout: float = HEAD_SECONDS,
        idle_timeout: float = IDLE_SECONDS,
        drain: float = DRAIN_SECONDS,
    ) -> None:
        self.handler = handler
        self.host = host
        self.port = port
        self.limits = limits or Limits()
        self.head_timeout = head_timeout
        self.idle_timeout = idle_timeout
        self.ticker = Ticker()
        self.draining = False
        self.requests = 0
        self._drain = drain
        self._connections: set[_Connection] = set()
        self._empty = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self.draining = True
        for connection in list(self._connections):
            connection.drain()
        if self._connections:
            try:
                async with asyncio.timeout(self._drain):
                    await self._empty.wait()
            except TimeoutError:
                for connection in list(self._connections):
                    connection.abort()
        self.ticker.close()

    def opened(self, connection: "_Connection") -> None:
        """A connection was accepted."""
        self._connections.add(connection)
        self._empty.clear()
        self.ticker.add(connection)

    def closed(self, connection: "_Connection") -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self.ticker.discard(connection)
        if not self._connections:
            self._empty.set()


class _Connection(RequestReader, asyncio.Protocol):
    """One client of the server."""

    transport: asyncio.Transport

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server.limits)
        self._server = server
        self._head: RequestHead | None = None
        self._body: list[bytes] = []
        self._waiting: deque[tuple[RequestHead, bytes]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._refused: FramingError | None = None
        self.deadline = asyncio.get_running_loop().time() + server.head_timeout

    # -- asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._peer = str((transport.get_extra_info("peername") or ("",))[0])
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._server.closed(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._refused is not None:
            return
        if self.between_messages and self._task is None:
            self._set_deadline(self._server.head_timeout)
        try:
            self.feed(data)
        except FramingError as error:
            self._refused = error
            if self._task is None:
                self._refuse(error)
        if len(self._waiting) >= PIPELINE:
            self.transport.pause_reading()

    def expire(self) -> None:
        """Too slow: tell it if it had begun a request, then close."""
        self.deadline = float("inf")
        if self.between_messages:
            self.transport.close()
        else:
            self._refused = FramingError(408, "the request didn't arrive in time")
            self._refuse(self._refused)

    def drain(self) -> None:
        """Close now if idle, else after the answer."""
        if self._task is None and self.between_messages:
            self.transport.close()

    def abort(self) -> None:
        """Cut it."""
        self.transport.abort()

    # -- the reader's hooks
    def head_received(self, head: RequestHead) -> None:
        self._head = head
        self._body = []
        self.limit_body(head, self.limits.body)
        if head.expects_continue and head.has_body and self._task is None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def body_received(self, data: bytes) -> None:
        self._body.append(data)

    def message_received(self) -> None:
        head, self._head = self._head, None
        if head is None:
            return
        self._waiting.append((head, b"".join(self._body)))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._serve())

    # -- answers
    async def _serve(self) -> None:
        self.deadline = float("inf")
        keep = True
        while self._waiting and keep:
            head, body = self._waiting.popleft()
            reply = await self._answer(head, body)
            self._server.requests += 1
            keep = head.keep_alive and not self._server.draining
            self.transport.write(reply_bytes(reply, keep_alive=keep, head_only=head.method == b"HEAD"))
        self._task = None
        if self._refused is not None and keep:
            self._refuse(self._refused)
        elif not keep:
            self.transport.close()
        else:
            self.transport.resume_reading()
            quiet = self.between_messages
            self._set_deadline(self._server.idle_timeout if quiet else self._server.head_timeout)

    async def _answer(self, head: RequestHead, body: bytes) -> HttpReply:
        path, _, query = head.target.decode("ascii").partition("?")
        fields = [(name.decode("latin-1"), value.decode("latin-1").strip()) for name, value in head.fields]
        request = HttpRequest(head.method.decode(), path, query, Headers(fields), body, self._peer)
        try:
            reply = self._server.handler(request)
            return await reply if inspect.isawaitable(reply) else reply
        except Exception:
            log.exception("http.handler_failed %s %s", request.method, request.path)
            return internal_error(request)

    def _refuse(self, error: FramingError) -> None:
        self.transport.write(reply_bytes(malformed(error), keep_alive=False, head_only=False))
        self.transport.close()

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = asyncio.get_running_loop().time() + seconds


@lru_cache(maxsize=1)
def http_date(second: int) -> bytes:
    """The Date line of an answer made in this second."""
    return b"date: " + formatdate(second, usegmt=True).encode() + b"\r\n"


def reply_bytes(reply: HttpReply, *, keep_alive: bool, head_only: bool) -> bytes:
    """A whole answer for the wire."""
    head = [status_line(reply.status), http_date(int(time.time()))]
    if reply.content_type is not None:
        head.append(field_line("content-type", reply.content_type))
    head += [field_line(name, value) for name, value in reply.headers]
    bodyless = reply.status in (204, 304)
    if not bodyless:
        head.append(b"content-length: %d\r\n" % len(reply.body))
    if not keep_alive:
        head.append(b"connection: close\r\n")
    head.append(b"\r\n")
    if not head_only and not bodyless:
        head.append(reply.body)
    return b"".join(head)
