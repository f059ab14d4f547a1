"""One client connection of a service: bytes to requests, one at a time and in order, each as a task of its own.

A request that arrives while another is being answered (pipelining) waits, and nothing more is read until it is its
turn. Nothing is read either while an application leaves more than `READ_AHEAD` of a body untaken.
"""

import asyncio
from collections import deque
from contextvars import Context
from typing import Any, Protocol, cast

from backstay.http.errors import FramingError
from backstay.http.framing import DISCARD_BYTES, LINGER_SECONDS, Limits, RequestHead, RequestReader
from backstay.http.problems import internal_error, malformed
from backstay.http.server import reply_bytes
from backstay.service.exchange import ClientLeft, Exchange, scope_of
from backstay.service.requests import Receive, Scope, Send
from backstay.telemetry.logs import get_logger

READ_AHEAD = 64 * 1024
"""Bytes of a body that are read before the application asks for them."""
STALL_TIMEOUT = 30.0
"""Seconds in which a client must take some of its answer."""
NEVER = float("inf")

log = get_logger()


class Owner(Protocol):
    """What connections share, and tell of themselves."""

    limits: Limits
    context: Context
    keep_alive: float
    draining: bool

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""

    def opened(self, connection: "Connection") -> None:
        """A connection was accepted."""

    def closed(self, connection: "Connection") -> None:
        """A connection is gone."""

    def began(self, exchange: Exchange) -> None:
        """A request is being answered."""

    def over(self, exchange: Exchange) -> None:
        """Its task is over."""


class Connection(RequestReader, asyncio.Protocol):
    """One client of a service."""

    __slots__ = (
        "_addresses",
        "_arriving",
        "_closing",
        "_current",
        "_head_timeout",
        "_loop",
        "_owner",
        "_queue",
        "_reading",
        "_refused",
        "_unsent",
        "_writable",
        "deadline",
        "transport",
        "writable",
    )

    transport: asyncio.Transport

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop, head_timeout: float) -> None:
        super().__init__(owner.limits)
        self.writable = True
        self.deadline = loop.time() + head_timeout
        self._owner = owner
        self._loop = loop
        self._head_timeout = head_timeout
        self._addresses: tuple[Any, Any] = (None, None)
        self._arriving: Exchange | None = None
        self._current: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._reading = True
        self._refused: FramingError | None = None
        self._closing = False
        self._writable: asyncio.Event | None = None
        self._unsent = 0

    # -- asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        peer, own = (transport.get_extra_info(name) for name in ("peername", "sockname"))
        self._addresses = (tuple(peer[:2]) if peer else None, tuple(own[:2]) if own else None)
        self._owner.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._closing = True
        self._owner.closed(self)
        self._queue.clear()
        if self._current is not None:
            self._current.break_off(gone=True)
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._closing or self._refused is not None:
            return
        if self._current is None and self.between_messages:
            self.deadline = self._loop.time() + self._head_timeout
        try:
            self.feed(data)
        except FramingError as error:
            self._refuse(error)

    def pause_writing(self) -> None:
        self.writable = False
        self._watch_sending()

    def resume_writing(self) -> None:
        self.writable = True
        if self._writable is not None:
            self._writable.set()
        if not self._closing:
            self.deadline = NEVER if self._current is not None else self._rest_until()

    # -- the reader's hooks
    def head_received(self, head: RequestHead) -> None:
        exchange = self._arriving = Exchange(self, head)
        if self._current is None:
            self._begin(exchange)
        else:
            self._queue.append(exchange)
            self.update_reading()

    def body_received(self, data: bytes) -> None:
        if self._arriving is not None:
            self._arriving.body_received(data)
            if self._arriving.buffered > READ_AHEAD:
                self.update_reading()

    def message_received(self) -> None:
        exchange, self._arriving = self._arriving, None
        if exchange is not None:
            exchange.request_complete()
            if self._current is None:  # it was answered before it was read
                self.deadline = self._rest_until()
            if not self._reading:
                self.update_reading()

    # -- for the exchange
    def write(self, data: bytes) -> None:
        """Send to the client."""
        if not self.transport.is_closing():
            self.transport.write(data)

    async def drained(self) -> None:
        """Return when the client has taken enough, or is gone."""
        while not self.writable:
            if self._writable is None:
                self._writable = asyncio.Event()
            self._writable.clear()
            await self._writable.wait()

    def update_reading(self) -> None:
        """Read from the client only while there is room for what it sends."""
        held = self._arriving is not None and self._arriving.buffered > READ_AHEAD
        wanted = self._closing or not (held or self._queue)
        if wanted != self._reading and not self.transport.is_closing():
            self._reading = wanted
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def keeps(self, exchange: Exchange) -> bool:
        """Whether the connection can go on after an answer that ends now."""
        if self._owner.draining or exchange.broken:
            return False
        return exchange.complete or not (exchange.unasked or not self.discard_body(exchange.head, DISCARD_BYTES))

    def answered(self) -> None:
        """The current answer is written to its end."""
        exchange, self._current = self._current, None
        if exchange is None or self.transport.is_closing():
            return
        if exchange.keep and self.keeps(exchange):
            self._advance()
        else:
            self._end_after(exchange)

    # -- requests
    def _begin(self, exchange: Exchange) -> None:
        self._current = exchange
        if self.writable:
            self.deadline = NEVER
        self._owner.began(exchange)
        # A request that waited begins inside the task of the one before it, whose context it must not inherit.
        exchange.task = self._loop.create_task(self._answer(exchange), context=self._owner.context.copy())

    async def _answer(self, exchange: Exchange) -> None:
        try:
            scope = scope_of(exchange.head, *self._addresses)
            await self._owner.app(scope, exchange.receive, exchange.send)
            if not exchange.finished and not exchange.gone:
                raise RuntimeError("the application returned before its answer was complete")
        except ClientLeft:
            self._fail(exchange)
        except asyncio.CancelledError:
            self._fail(exchange)
            raise
        except Exception as error:
            log.error("http.app-failed", error=type(error).__name__, exc_info=error)
            self._fail(exchange)
        finally:
            self._owner.over(exchange)

    def _fail(self, exchange: Exchange) -> None:
        """The application gave up: say so if nothing has been said, else let nobody take a part for the whole."""
        if exchange.finished or exchange.gone:
            return
        if exchange.started:
            self.transport.abort()
            return
        reply = internal_error()
        self.write(reply_bytes(reply, keep_alive=False, head_only=exchange.head.method == b"HEAD"))
        exchange.break_off(gone=True)
        self._current = None
        self._end_after(exchange)

    def _advance(self) -> None:
        """Take up what waits, or rest."""
        if self._queue:
            self._begin(self._queue.popleft())
            self.update_reading()
        elif self._refused is not None:
            self._answer_refused(self._refused)
        else:
            self.deadline = self._rest_until()
            self.update_reading()

    def _rest_until(self) -> float:
        wait = self._owner.keep_alive if self.between_messages else self._head_timeout
        return self._loop.time() + wait

    # -- what can't be understood
    def _refuse(self, error: FramingError) -> None:
        """What arrived can't be understood any further: tell, after the answers that are owed, and end."""
        self._refused = error
        arriving, self._arriving = self._arriving, None
        if arriving is not None and arriving is self._current:
            arriving.break_off(gone=not arriving.started)
            if arriving.started:
                return
            self._current = None
        elif arriving is not None and arriving in self._queue:
            self._queue.remove(arriving)
        if self._current is None:
            if arriving is not None and arriving.finished:  # the rest of a body that nobody wanted
                self._linger()
            else:
                self._answer_refused(error)

    def _answer_refused(self, error: FramingError) -> None:
        self.write(reply_bytes(malformed(error), keep_alive=False, head_only=False))
        self._linger()

    # -- time and the end
    def expire(self) -> None:
        """The deadline has passed."""
        if not self.writable or self.transport.is_closing():
            self._expire_sending()
        elif self._closing or self.between_messages or self._arriving is not None:
            self.close()
        else:
            self._refuse(FramingError(408, "the request didn't arrive in time"))

    def _expire_sending(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent >= self._unsent:
            self.transport.abort()
        else:
            self._watch_sending()

    def _watch_sending(self) -> None:
        """The client has to take something until then."""
        self._unsent = self.transport.get_write_buffer_size()
        self.deadline = self._loop.time() + STALL_TIMEOUT

    def drain(self) -> None:
        """Close if idle; else the exchange in flight is the last."""
        if self._current is None and not self._closing:
            self.close()

    def close(self) -> None:
        """Close when all that was written has been taken, if it is in time."""
        self._closing = True
        if not self.transport.is_closing():
            self._watch_sending()
            self.transport.close()

    def abort(self) -> None:
        """Cut it."""
        self.transport.abort()

    def _end_after(self, exchange: Exchange) -> None:
        if exchange.complete:
            self.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Close, but not before the client could read the answer: closing at once could destroy it on its way."""
        self._closing = True
        if self.transport.is_closing():
            return
        self.deadline = self._loop.time() + LINGER_SECONDS
        self.transport.write_eof()
        self.update_reading()


__all__ = ["READ_AHEAD", "STALL_TIMEOUT", "Connection", "Owner"]
