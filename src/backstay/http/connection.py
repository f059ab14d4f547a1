"""One connection to an upstream: writes requests, reads answers, and hands them to a sink.

A connection serves one exchange at a time. It goes back to the pool only when the answer ended by its own framing, the
request was sent whole, and neither side asked for the end; in every doubt it is closed.
"""

import asyncio
from typing import Protocol, cast

import httptools

from backstay.http.errors import BadResponse, ConnectionLost, HttpError
from backstay.http.framing import Fields

MAX_RESPONSE_HEAD = 64 * 1024  # bytes
NO_BODY = frozenset((204, 304))

Address = tuple[str, int]


class ResponseHead:
    """Status and fields of an answer (names in lower case), and how its body is delimited."""

    __slots__ = ("chunked", "connection", "fields", "length", "status")

    def __init__(
        self, status: int, fields: Fields, *, chunked: bool = False, length: int | None = None, connection: bytes = b""
    ) -> None:
        self.status = status
        self.fields = fields
        self.connection = connection
        self.chunked = chunked
        self.length = length


class ResponseSink(Protocol):
    """The receiver of an answer. Calls come in the order written here; the last is `ended` or `failed`, once."""

    def response_interim(self, head: ResponseHead) -> None:
        """A 1xx answer; the real one follows."""

    def response_started(self, head: ResponseHead) -> None:
        """The head of the answer."""

    def response_data(self, data: bytes) -> None:
        """A piece of the body."""

    def response_flush(self) -> None:
        """All that has arrived so far was handed over, and more will come."""

    def response_ended(self) -> None:
        """The answer is whole, and the connection no longer this sink's."""

    def response_failed(self, error: HttpError) -> None:
        """There will be no more, and the connection is gone."""

    def upstream_writable(self, writable: bool) -> None:
        """The upstream's buffer is full (False) or has room again (True)."""


class Owner(Protocol):
    """The pool, as a connection sees it."""

    def released(self, connection: "Connection") -> None:
        """The connection can take another exchange."""

    def closed(self, connection: "Connection") -> None:
        """The connection is gone."""


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    __slots__ = (
        "_body_follows",
        "_chunked",
        "_done",
        "_fields",
        "_head_only",
        "_keep",
        "_length",
        "_named",
        "_parser",
        "_paused",
        "_raw",
        "_status",
        "_until_close",
        "address",
        "answered",
        "closed",
        "idle_since",
        "owner",
        "request_sent",
        "reused",
        "sink",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, owner: Owner, address: Address) -> None:
        self.owner = owner
        self.address = address
        self.sink: ResponseSink | None = None
        self.closed = False
        self.reused = False
        self.answered = False
        self.request_sent = True
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._head_only = self._done = self._body_follows = self._until_close = self._chunked = self._keep = (
            self._paused
        ) = False
        self._fields: Fields = []
        self._length: int | None = None
        self._named = b""
        self._status = 0
        self._raw = 0

    # -- the exchange's side
    def start(self, sink: ResponseSink, data: bytes, *, head_only: bool, request_sent: bool) -> None:
        """Send the beginning of a request. `head_only`: it is a HEAD. `request_sent`: nothing will follow."""
        self.sink = sink
        self.answered = self._done = self._body_follows = self._until_close = False
        self.request_sent = request_sent
        self._head_only = head_only
        self._raw = 0
        self.transport.write(data)

    def write(self, data: bytes) -> None:
        """Send more of the request's body."""
        if not self.closed:
            self.transport.write(data)

    def abandon(self) -> None:
        """Give the exchange up: the sink is not called any more and the connection is closed."""
        self.sink = None
        self.transport.abort()

    def close(self) -> None:
        """Close an idle connection."""
        self.transport.close()

    def pause(self) -> None:
        """Read no more for now."""
        if not self.closed and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self.closed and self._paused:
            self._paused = False
            self.transport.resume_reading()

    # -- asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        sink = self.sink
        if sink is None:  # bytes that nobody asked for: whatever they are, they answer nothing
            self.transport.abort()
            return
        self.answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(BadResponse("the upstream switched to another protocol unasked"))
            return
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._fail(cause if isinstance(cause, HttpError) else BadResponse("the answer couldn't be passed on"))
            if not isinstance(cause, HttpError):
                raise cause or error from None
            return
        except httptools.HttpParserError as error:
            self._fail(BadResponse(f"the answer isn't valid HTTP/1.1: {error}"))
            return
        if not self._body_follows and not self._done:
            self._raw += len(data)
            if self._raw > MAX_RESPONSE_HEAD:
                self._fail(BadResponse(f"the head of the answer has more than {MAX_RESPONSE_HEAD} bytes"))
                return
        if self._done:
            self._finish()
        elif self.sink is not None:
            sink.response_flush()

    def eof_received(self) -> None:
        if self._until_close and self.sink is not None:
            self._done = True
            self._until_close = False
            self._finish(keep=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.owner.closed(self)
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.response_failed(ConnectionLost(str(exc or ""), answered=self.answered))
        del self._parser  # it refers back to the connection: both would wait for the garbage collector

    def pause_writing(self) -> None:
        if self.sink is not None:
            self.sink.upstream_writable(False)

    def resume_writing(self) -> None:
        if self.sink is not None:
            self.sink.upstream_writable(True)

    # -- callbacks of the parser
    def on_message_begin(self) -> None:
        self._fields = []
        self._length = None
        self._chunked = False
        self._named = b""
        if self._done:  # a second answer to one request
            self.request_sent = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._body_follows:
            return
        key = name.lower()
        if key == b"content-length":
            self._length = int(value)
        elif key == b"transfer-encoding":
            if value.strip().lower() != b"chunked":
                raise BadResponse("the answer has a Transfer-Encoding other than chunked")
            self._chunked = True
        elif key == b"connection":
            self._named += b"," + value
        self._fields.append((key, value))

    def on_headers_complete(self) -> None:
        sink = self.sink
        if sink is None or self._done:
            return
        status = self._status = self._parser.get_status_code()
        if status < 200:
            if status != 101:
                sink.response_interim(ResponseHead(status, self._fields))
            return
        self._body_follows = True
        bodyless = self._head_only or status in NO_BODY
        self._until_close = not bodyless and not self._chunked and self._length is None
        sink.response_started(
            ResponseHead(status, self._fields, chunked=self._chunked, length=self._length, connection=self._named)
        )
        if self._head_only:
            self._message_done()

    def on_body(self, data: bytes) -> None:
        if self._done:  # a body after the end: the rest of this connection can't be trusted
            self.request_sent = False
        elif self.sink is not None:
            self.sink.response_data(data)

    def on_message_complete(self) -> None:
        if self._body_follows and not self._done:
            self._message_done()

    def _message_done(self) -> None:
        self._done = True
        self._keep = self._parser.should_keep_alive()  # the parser forgets it with the end of the message

    def _finish(self, *, keep: bool = True) -> None:
        sink, self.sink = self.sink, None
        if sink is None:
            return
        if keep and self._keep and self.request_sent and not self.transport.is_closing():
            if self._head_only:  # the parser still waits for a body that HEAD never has
                self._parser = httptools.HttpResponseParser(self)
            self.resume()
            self.reused = True
            self.owner.released(self)
        else:
            self.transport.close()
        sink.response_ended()

    def _fail(self, error: HttpError) -> None:
        sink, self.sink = self.sink, None
        self.transport.abort()
        if sink is not None:
            sink.response_failed(error)
