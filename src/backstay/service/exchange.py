"""One request and its answer as ASGI sees them: pieces of the body in, the bytes of the answer out.

The answer's head waits for the first piece of its body, so that a whole answer is one write. Framing is ours: what the
application says about `connection` is a wish, about `transfer-encoding` nothing.
"""

import asyncio
from typing import Any
from urllib.parse import unquote

from backstay.asgi.types import App, Message, Scope
from backstay.http.application import READ_AHEAD, SLICE_BYTES, ApplicationExchange, reply_bytes
from backstay.http.errors import FramingError
from backstay.http.framing import RequestHead, check_lines, field_name
from backstay.http.inbound import InboundConnection
from backstay.http.listener import Listener
from backstay.http.messages import status_line
from backstay.http.problems import internal_error
from backstay.telemetry.logs import get_logger

_FRAMING = frozenset((b"connection: ", b"content-length: ", b"keep-alive: ", b"transfer-encoding: "))
_ASGI = {"version": "3.0", "spec_version": "2.4"}

log = get_logger()


class ClientLeft(OSError):
    """The client went away, so there is nobody to send to."""


class Exchange(ApplicationExchange):
    """A request whose body may still be arriving, answered by an ASGI application in a task of its own."""

    __slots__ = (
        "_app",
        "_arrived",
        "_chunked",
        "_delivered",
        "_left",
        "_lines",
        "_mute",
        "_pieces",
        "_status",
        "_taken",
        "_task",
        "addresses",
        "broken",
        "buffered",
        "started",
    )

    def __init__(
        self, connection: InboundConnection, listener: Listener, head: RequestHead, app: App, addresses: tuple[Any, Any]
    ) -> None:
        super().__init__(connection, listener, head)
        self.addresses = addresses
        self.broken = False
        """The request never arrives to its end: what came was no HTTP."""
        self.started = False
        """Bytes of the answer have been written."""
        self.buffered = 0
        """Bytes of the body that the application hasn't taken."""
        self._app = app
        self._task: asyncio.Task[None] | None = None
        self._pieces: list[bytes] = []
        self._arrived: asyncio.Event | None = None
        self._taken: asyncio.Event | None = None
        self._delivered = False
        self._status = 0
        self._lines = b""
        self._left: int | None = None  # of the declared content-length
        self._chunked = False
        self._mute = head.method == b"HEAD"

    # -- for the connection
    @property
    def holds_input(self) -> bool:
        """The application has enough to take."""
        return self.buffered > READ_AHEAD

    def begin(self) -> None:
        """Let the application answer."""
        self._task = self.listener.run(self._answer())

    def body_received(self, data: bytes) -> None:
        """More of the body; dropped if the answer is finished, for nobody will ask for it."""
        if not self.answered:
            self._pieces.append(data)
            self.buffered += len(data)
            self._wake()

    def request_complete(self) -> None:
        """The body is complete."""
        self.complete = True
        self._wake()

    def refuse(self, error: FramingError) -> None:
        """No more of the body arrives; an answer that has begun may be finished."""
        self.broken = True
        if not self.started:
            super().refuse(error)
        self._wake()

    def client_gone(self) -> None:
        """Nothing more arrives, and nothing can be answered either."""
        self.broken = self.gone = True
        self._wake()
        if self._taken is not None:
            self._taken.set()

    def client_writable(self, writable: bool) -> None:
        """Let the application send on."""
        if writable and self._taken is not None:
            self._taken.set()

    # -- for the application
    async def receive(self) -> Message:
        """ASGI: the next piece of the body, or that the client left or has been answered."""
        if self.unasked:
            self._ask_for_body()
        while not (self._pieces or self.broken or self.answered or (self.complete and not self._delivered)):
            if self._arrived is None:
                self._arrived = asyncio.Event()
            self._arrived.clear()
            await self._arrived.wait()
        if self.broken or self.answered:
            return {"type": "http.disconnect"}
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = []
        self.buffered = 0
        more = not self.complete
        self._delivered = not more
        if more:
            self.connection.update_reading()  # which may bring the rest at once
        return {"type": "http.request", "body": body, "more_body": more}

    async def send(self, message: Message) -> None:
        """ASGI: the answer.

        Raises:
            ClientLeft: there is nobody to send to.
            RuntimeError: the message isn't allowed here, or has another length than was said.
            ValueError: a header can't be sent.
        """
        kind = message["type"]
        if kind == "http.response.start":
            self._start(message)
        elif kind == "http.response.body" and self._status and (self.gone or not self.answered):
            data, more = message.get("body", b""), message.get("more_body", False)
            if self.gone or not self.connection.writable:
                await self._room()
            head = b"" if self.started else self._head(data, more=more)
            body = b"" if self._mute else self._framed(data, more=more)
            self.started = True
            if len(body) > SLICE_BYTES:  # a copy of it must not wait for the client
                await self._send_slices(head, memoryview(body))
            elif head or body:
                self.connection.write(head + body)
            if not more:
                self.answered = True
                self._wake()
                self.connection.answered(self, keep=self.keep and not self.broken)
        else:
            raise RuntimeError(f"the message {kind!r} isn't possible here")

    async def _room(self) -> None:
        """Wait until the client has taken enough of what was sent; raises ClientLeft."""
        while not (self.connection.writable or self.gone):
            if self._taken is None:
                self._taken = asyncio.Event()
            self._taken.clear()
            await self._taken.wait()
        if self.gone:
            raise ClientLeft("the client left before its answer was complete")

    def _ask_for_body(self) -> None:
        if self.started or self.buffered or self.complete or self.broken:
            self.unasked = False
        else:
            self.connection.write_continue(self)

    def _start(self, message: Message) -> None:
        if self._status:
            raise RuntimeError("the answer has been started already")
        status = message["status"]
        if not 200 <= status <= 999:
            raise RuntimeError(f"an answer can't have the status {status}")
        lines: list[bytes] = []
        for name, value in message.get("headers", ()):
            line = field_name(name)
            if line in _FRAMING:
                self._take(line, value)
            else:
                lines += (line, value, b"\r\n")
        block = b"".join(lines)
        check_lines(block, len(lines) // 3)
        self._lines = status_line(status) + block
        if status in (204, 304):
            self._mute = True
        self._status = status

    def _take(self, line: bytes, value: bytes) -> None:
        if line == b"content-length: ":
            if not value.isdigit():
                raise ValueError(f"{value!r} isn't a content-length")
            self._left = int(value)
        elif line == b"connection: " and value.lower() == b"close":
            self.keep = False

    async def _send_slices(self, head: bytes, body: memoryview) -> None:
        self.connection.write(head)
        while body:
            self.connection.write(body[:SLICE_BYTES])
            body = body[SLICE_BYTES:]
            await self._room()

    def _head(self, data: bytes, *, more: bool) -> bytes:
        """Return the answer's head; how the body ends, and what happens to the connection, is decided here."""
        lines = self._lines
        if self._status == 204:
            pass
        elif self._left is not None:
            lines += b"content-length: %d\r\n" % self._left
        elif not more and (data or not self._mute):
            self._left = len(data)
            lines += b"content-length: %d\r\n" % self._left
        elif not self._mute and self.head.version == "1.1":
            self._chunked = True
            lines += b"transfer-encoding: chunked\r\n"
        elif not self._mute:
            self.keep = False
        if self.keep:
            self.keep = self.connection.keeps(self, whole=not more)
        if not self.keep:
            return lines + b"connection: close\r\n\r\n"
        return lines + (b"connection: keep-alive\r\n\r\n" if self.head.version == "1.0" else b"\r\n")

    def _framed(self, data: bytes, *, more: bool) -> bytes:
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body isn't as long as its content-length says")
        return data

    async def _answer(self) -> None:
        """Run the application; what it leaves unanswered is a 500, or cut."""
        try:
            await self._app(self._scope(), self.receive, self.send)
            if not self.answered and not self.gone:
                raise RuntimeError("the application returned before its answer was complete")
        except ClientLeft:
            self._fail()
        except asyncio.CancelledError:
            self._fail()
            raise
        except Exception as error:
            log.error("http.app-failed", error=type(error).__name__, exc_info=error)
            self._fail()
        finally:
            self.listener.over(self._task)

    def _fail(self) -> None:
        """The application gave up: say so if nothing has been said, else let nobody take a part for the whole."""
        if self.answered or self.gone:
            return
        if self.started:
            self.connection.abort()
            return
        self.gone = self.answered = True
        mute = self.head.method == b"HEAD"
        self.connection.write(reply_bytes(internal_error(), keep_alive=False, head_only=mute))
        self._wake()
        self.connection.answered(self, keep=False)

    def _scope(self) -> Scope:
        return scope_of(self.head, *self.addresses)

    def _wake(self) -> None:
        if self._arrived is not None:
            self._arrived.set()


def scope_of(head: RequestHead, client: Any, server: Any) -> Scope:
    """ASGI: what is known of a request when its head is."""
    raw, _, query = head.target.partition(b"?")
    path = raw.decode("ascii")
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": head.version,
        "method": head.method.decode("ascii"),
        "scheme": "http",
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw,
        "query_string": query,
        "root_path": "",
        "headers": head.fields,
        "client": client,
        "server": server,
        "state": {},
    }


__all__ = ["ClientLeft", "Exchange", "scope_of"]
