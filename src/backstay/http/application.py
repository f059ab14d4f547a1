"""An exchange answered in this process: the body in bounded pieces, the answer out, framed here.

`FunctionExchange` is the plain form, a function from request to reply; the service kit puts ASGI on `Application`.
An answer is written in slices of `SLICE_BYTES`, the next one when the client has taken the last, so that a client that
doesn't read holds no copy of a large answer in memory.
"""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache

from backstay.http.errors import FramingError
from backstay.http.framing import RequestHead, field_line
from backstay.http.inbound import InboundConnection
from backstay.http.listener import Listener
from backstay.http.messages import Headers, HttpReply, HttpRequest, status_line
from backstay.http.problems import internal_error

READ_AHEAD = 64 * 1024
"""Bytes of a body that are read before the application asks for them."""
SLICE_BYTES = 128 * 1024
"""Bytes of an answer written at a time."""

Handler = Callable[[HttpRequest], HttpReply | Awaitable[HttpReply]]
log = logging.getLogger("backstay.http.server")


class ApplicationExchange(ABC):
    """The common part of all answers from this process: the state of a request, and complete answers."""

    __slots__ = ("_rest", "answered", "complete", "connection", "gone", "head", "keep", "listener", "unasked")

    def __init__(self, connection: InboundConnection, listener: Listener, head: RequestHead) -> None:
        self.connection = connection
        self.listener = listener
        self.head = head
        self.complete = not head.has_body
        """The request has arrived to its end."""
        self.unasked = not self.complete and head.expects_continue
        """The client waits for `100 Continue`, which it hasn't got: it may send the body or not."""
        self.gone = False
        """Nobody takes an answer any more."""
        self.answered = False
        """All of the answer has been given to the connection, or is in `_rest`."""
        self.keep = head.keep_alive
        self._rest: memoryview | None = None

    @property
    def holds_input(self) -> bool:
        """Nothing is held back."""
        return False

    @abstractmethod
    def begin(self) -> None:
        """It is this request's turn."""

    @abstractmethod
    def body_received(self, data: bytes) -> None:
        """A piece of the body."""

    def request_complete(self) -> None:
        """The body is complete."""
        self.complete = True

    def refuse(self, error: FramingError) -> None:
        """Answer with the error, since the rest of the request can't be read, unless an answer has begun."""
        if not self.answered:
            self.gone = self.answered = True
            self.connection.write(self.connection.refusal(error))
            self.connection.answered(self, keep=False)

    def client_gone(self) -> None:
        """The client left."""
        self.gone = True
        self._rest = None

    def client_writable(self, writable: bool) -> None:
        """Go on with the answer when the client has taken some of it."""
        if writable and self._rest is not None:
            self._write_rest()

    def expire(self) -> None:  # noqa: B027 - nothing to do is the whole of it
        """No deadline of its own is ever set: the application's time is its own matter."""

    def send_whole(self, head: bytes, body: bytes) -> None:
        """The whole answer; the connection goes on when the client has taken it."""
        self.answered = True
        if len(body) <= SLICE_BYTES:
            self.connection.write(head + body)
            self.connection.answered(self, keep=self.keep)
        else:
            self.connection.write(head)
            self._rest = memoryview(body)
            self._write_rest()

    def _write_rest(self) -> None:
        while self._rest is not None and self.connection.writable:
            piece, rest = self._rest[:SLICE_BYTES], self._rest[SLICE_BYTES:]
            self._rest = rest if len(rest) else None
            self.connection.write(piece)
            if self._rest is None and not self.gone:
                self.connection.answered(self, keep=self.keep)


class FunctionExchange(ApplicationExchange):
    """A whole request for a handler, and its reply. A handler that raises is a 500; its error is logged."""

    __slots__ = ("_body", "_handler", "_ready", "_task")

    def __init__(self, connection: InboundConnection, listener: Listener, head: RequestHead, handler: Handler) -> None:
        super().__init__(connection, listener, head)
        self._handler = handler
        self._body: list[bytes] = []
        self._ready = False  # its turn has come
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Answer if the request is complete, else read the rest."""
        self._ready = True
        if self.complete:
            self._handle()
        else:
            self.connection.write_continue(self)

    def body_received(self, data: bytes) -> None:
        """Gather the body; the reader has limited it."""
        if not self.answered:
            self._body.append(data)

    def request_complete(self) -> None:
        """The request is whole."""
        self.complete = True
        if self._ready and not self.answered:
            self._handle()

    def client_gone(self) -> None:
        """The handler isn't needed any longer."""
        super().client_gone()
        if self._task is not None:
            self.listener.give_up(self._task)

    def _handle(self) -> None:
        request = self._request()
        try:
            reply = self._handler(request)
        except Exception:  # noqa: BLE001 - logged there
            self._reply(_failed(request))
            return
        if isinstance(reply, HttpReply):
            self._reply(reply)
        else:
            self._task = self.listener.run(self._await(request, reply))

    async def _await(self, request: HttpRequest, coming: Awaitable[HttpReply]) -> None:
        try:
            reply = await coming
        except asyncio.CancelledError:
            if not self.gone:
                self.connection.abort()
            raise
        except Exception:  # noqa: BLE001 - logged there
            reply = _failed(request)
        finally:
            self.listener.over(self._task)
        if not self.gone:
            self._reply(reply)

    def _request(self) -> HttpRequest:
        head = self.head
        path, _, query = head.target.decode("ascii").partition("?")
        fields = [(name.decode("latin-1"), value.decode("latin-1").strip()) for name, value in head.fields]
        body = b"".join(self._body) if self._body else b""
        self._body = []
        return HttpRequest(head.method.decode(), path, query, Headers(fields), body, self.connection.address)

    def _reply(self, reply: HttpReply) -> None:
        self.keep = self.connection.keeps(self)
        try:
            head, body = reply_parts(reply, keep_alive=self.keep, head_only=self.head.method == b"HEAD")
        except ValueError:  # a header that can't be written
            log.exception("http.handler_failed")
            head, body = reply_parts(internal_error(), keep_alive=self.keep, head_only=self.head.method == b"HEAD")
        self.send_whole(head, body)


def _failed(request: HttpRequest) -> HttpReply:
    log.exception("http.handler_failed %s %s", request.method, request.path)
    return internal_error(request)


@lru_cache(maxsize=1)
def http_date(second: int) -> bytes:
    """Return the Date line of an answer made in this second."""
    return b"date: " + formatdate(second, usegmt=True).encode() + b"\r\n"


def reply_parts(reply: HttpReply, *, keep_alive: bool, head_only: bool) -> tuple[bytes, bytes]:
    """Head and body of a whole answer for the wire."""
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
    return b"".join(head), b"" if head_only or bodyless else reply.body


def reply_bytes(reply: HttpReply, *, keep_alive: bool, head_only: bool) -> bytes:
    """Return a whole answer for the wire."""
    return b"".join(reply_parts(reply, keep_alive=keep_alive, head_only=head_only))


__all__ = [
    "READ_AHEAD",
    "SLICE_BYTES",
    "ApplicationExchange",
    "FunctionExchange",
    "Handler",
    "http_date",
    "reply_bytes",
    "reply_parts",
]
