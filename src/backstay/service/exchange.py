"""One request and its answer as ASGI sees them: pieces of the body in, the bytes of the answer out.

The answer's head waits for the first piece of its body, so that a whole answer is one write. Framing is ours: what the
application says about `connection` is a wish, about `transfer-encoding` nothing.
"""

import asyncio
from typing import Any, Protocol
from urllib.parse import unquote

from backstay.http.framing import RequestHead, check_lines, field_name
from backstay.http.messages import status_line
from backstay.service.requests import Message, Scope

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_FRAMING = frozenset((b"connection: ", b"content-length: ", b"keep-alive: ", b"transfer-encoding: "))
_ASGI = {"version": "3.0", "spec_version": "2.4"}


class ClientLeft(OSError):
    """The client went away, so there is nobody to send to."""


class Wire(Protocol):
    """What an exchange needs of its connection."""

    writable: bool

    def write(self, data: bytes) -> None:
        """Send to the client."""

    async def drained(self) -> None:
        """Return when the client has taken enough, or is gone."""

    def update_reading(self) -> None:
        """Buffered input has been taken."""

    def keeps(self, exchange: "Exchange") -> bool:
        """Whether the connection can go on after an answer that ends now."""

    def answered(self) -> None:
        """The current answer is written to its end."""


class Exchange:
    """A request whose body may still be arriving."""

    __slots__ = (
        "_arrived",
        "_chunked",
        "_continue",
        "_delivered",
        "_left",
        "_lines",
        "_mute",
        "_pieces",
        "_status",
        "_wire",
        "broken",
        "buffered",
        "complete",
        "finished",
        "gone",
        "head",
        "keep",
        "started",
        "task",
    )

    def __init__(self, wire: Wire, head: RequestHead) -> None:
        self.head = head
        self.task: asyncio.Task[None] | None = None
        self.complete = False
        """The request has arrived to its end."""
        self.broken = False
        """It never will: what came was no HTTP."""
        self.gone = False
        """Nobody takes an answer any more."""
        self.started = False
        """Bytes of the answer have been written."""
        self.finished = False
        """All of them have."""
        self.keep = head.keep_alive
        self.buffered = 0
        """Bytes of the body that the application hasn't taken."""
        self._wire = wire
        self._pieces: list[bytes] = []
        self._arrived: asyncio.Event | None = None
        self._delivered = False
        self._continue = head.has_body and head.expects_continue
        self._status = 0
        self._lines = b""
        self._left: int | None = None  # of the declared content-length
        self._chunked = False
        self._mute = head.method == b"HEAD"

    # -- for the connection
    def body_received(self, data: bytes) -> None:
        """More of the body; dropped if the answer is finished, for nobody will ask for it."""
        if not self.finished:
            self._pieces.append(data)
            self.buffered += len(data)
            self._wake()

    def request_complete(self) -> None:
        """The body is complete."""
        self.complete = True
        self._wake()

    def break_off(self, *, gone: bool) -> None:
        """Nothing more arrives; `gone`: nothing can be answered either."""
        self.broken = True
        self.gone = self.gone or gone
        self._wake()

    @property
    def unasked(self) -> bool:
        """The client waits for `100 Continue`, which it hasn't got: it may send the body or not."""
        return self._continue

    # -- for the application
    async def receive(self) -> Message:
        """ASGI: the next piece of the body, or that the client left or has been answered."""
        if self._continue:
            self._ask_for_body()
        while not (self._pieces or self.broken or self.finished or (self.complete and not self._delivered)):
            if self._arrived is None:
                self._arrived = asyncio.Event()
            self._arrived.clear()
            await self._arrived.wait()
        if self.broken or self.finished:
            return {"type": "http.disconnect"}
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = []
        self.buffered = 0
        self._delivered = self.complete
        if not self.complete:
            self._wire.update_reading()
        return {"type": "http.request", "body": body, "more_body": not self.complete}

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
        elif kind == "http.response.body" and self._status and not self.finished:
            if not self._wire.writable:
                await self._wire.drained()
            if self.gone:
                raise ClientLeft("the client left before its answer was complete")
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"the message {kind!r} isn't possible here")

    def _ask_for_body(self) -> None:
        self._continue = False
        if not (self.started or self.buffered or self.complete or self.broken):
            self._wire.write(_CONTINUE)

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

    def _send_body(self, data: bytes, *, more: bool) -> None:
        head = b"" if self.started else self._head(data, more=more)
        body = b"" if self._mute else self._framed(data, more=more)
        self.started = True
        self.finished = not more
        if head or body:
            self._wire.write(head + body)
        if self.finished:
            self._wake()
            self._wire.answered()

    def _head(self, data: bytes, *, more: bool) -> bytes:
        """The answer's head; how the body ends, and what happens to the connection, is decided here."""
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
        if self.keep and not (more or self._wire.keeps(self)):
            self.keep = False
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


__all__ = ["ClientLeft", "Exchange", "Wire", "scope_of"]
