"""The client's side of the data plane: one client connection and its exchanges, one at a time and in order.

A request that arrives while another is being answered (pipelining) waits, and nothing more is read until it is its
turn. Nothing is read either while the client doesn't take its answers, or the upstream its request.
"""

import asyncio
from collections import deque
from typing import cast

from backstay.gateway.exchange import Exchange
from backstay.gateway.forwarding import Peer
from backstay.gateway.plane import Plane
from backstay.gateway.problems import Refusal, answer_bytes, malformed
from backstay.http.errors import FramingError
from backstay.http.framing import DISCARD_BYTES, LINGER_SECONDS, RequestHead, RequestReader

NEVER = float("inf")


class Inbound(RequestReader, asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "_advancing",
        "_arriving",
        "_closing",
        "_current",
        "_queue",
        "_reading",
        "_refused",
        "deadline",
        "gateway",
        "lost",
        "peer",
        "transport",
        "writable",
    )

    transport: asyncio.Transport
    peer: Peer

    def __init__(self, gateway: Plane) -> None:
        super().__init__(gateway.options.limits)
        self.gateway = gateway
        self.lost = False
        self.writable = True
        self.deadline = gateway.time() + gateway.options.head_timeout
        self._arriving: Exchange | None = None
        self._current: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._reading = True
        self._refused: Refusal | None = None
        self._closing = False
        self._advancing = False

    # -- asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        address = transport.get_extra_info("peername")
        self.peer = self.gateway.peer(str(address[0]) if address else "unknown")
        if not self.gateway.opened(self):
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.lost = True
        self.gateway.closed(self)
        current, self._current = self._current, None
        self._queue.clear()
        if current is not None:
            current.client_gone()

    def data_received(self, data: bytes) -> None:
        if self._closing or self._refused is not None:
            return
        if self._current is None and self.between_messages:
            self.deadline = self.gateway.time() + self.gateway.options.head_timeout
        try:
            self.feed(data)
        except FramingError as error:
            self._refuse(malformed(error.status, error.reason))

    def pause_writing(self) -> None:
        self.writable = False
        if self._current is not None:
            self._current.client_writable(False)
        self.update_reading()

    def resume_writing(self) -> None:
        self.writable = True
        if self._current is not None:
            self._current.client_writable(True)
        self.update_reading()

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

    def message_received(self) -> None:
        exchange, self._arriving = self._arriving, None
        if exchange is not None:
            exchange.request_complete()

    # -- for the exchange
    def write(self, data: bytes) -> None:
        """Send to the client."""
        if not self.lost and not self.transport.is_closing():
            self.transport.write(data)

    def update_reading(self) -> None:
        """Read from the client only while there is room for what it sends."""
        held = self._current is not None and self._current.upload_held
        wanted = self.writable and not self._queue and not held
        if wanted != self._reading and not self.lost:
            self._reading = wanted
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def keeps(self, head: RequestHead) -> bool:
        """Whether the connection can go on after this request."""
        return head.keep_alive and not self.gateway.draining

    def discards(self, head: RequestHead) -> bool:
        """Whether what is left of an unwanted body is little enough to be read away."""
        return self.discard_body(head, DISCARD_BYTES)

    def exchange_done(self, exchange: object, *, keep: bool, body_pending: bool) -> None:
        """The answer is written; `body_pending`: the request isn't read to its end, and nobody wants the rest."""
        if self._current is not exchange or self.lost:
            return
        self._current = None
        if body_pending:
            self._linger()
        elif not keep:
            self._closing = True
            self.transport.close()
        elif not self._advancing:
            self._advance()
        self.update_reading()

    def cut(self) -> None:
        """End the connection in the middle of an answer: the client must not take it for a whole one."""
        self.transport.abort()

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._current is not None

    # -- time
    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = NEVER
        if self._closing:
            self.transport.abort()
        elif self._current is not None:
            self._current.expire()
        elif self.between_messages:
            self.transport.close()
        else:
            self._refuse(malformed(408, "the request didn't arrive in time"))

    def drain(self) -> None:
        """Close if idle; else the exchange in flight is the last."""
        if self._current is None and self.between_messages and not self._closing:
            self.transport.close()

    def _begin(self, exchange: Exchange) -> None:
        self._current = exchange
        exchange.begin()

    def _advance(self) -> None:
        """Take up what waits, in a loop: an exchange may be done before its `begin` returns."""
        self._advancing = True
        try:
            while self._queue and self._current is None and not self._closing:
                self._begin(self._queue.popleft())
        finally:
            self._advancing = False
        if self._current is None and not self._closing:
            if self._refused is not None:
                self._answer_refused(self._refused)
            else:
                self._rest()

    def _rest(self) -> None:
        """Nothing to do: wait for the next request, or for the rest of its head."""
        options = self.gateway.options
        wait = options.keep_alive if self.between_messages else options.head_timeout
        self.deadline = self.gateway.time() + wait
        if self.gateway.draining:
            self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        """What arrived can't be understood any further: tell, and end the connection."""
        self._refused = refusal
        arriving, self._arriving = self._arriving, None
        if arriving is not None and arriving is self._current:
            arriving.refuse(refusal)
            return
        if arriving is not None and arriving in self._queue:
            self._queue.remove(arriving)
        if self._current is None:
            self._answer_refused(refusal)

    def _answer_refused(self, refusal: Refusal) -> None:
        trace_id = self.gateway.refused(self.peer, refusal)
        self.write(answer_bytes(refusal, "", trace_id, keep=False, head_only=False))
        self._linger()

    def _linger(self) -> None:
        """Close, but not before the client could read the answer: closing at once could destroy it on its way."""
        self._closing = True
        self.deadline = self.gateway.time() + LINGER_SECONDS
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()
