"""The inbound HTTP/1.1 connection: bytes to requests, one at a time and in order, each answered by an exchange.

Gateway, registry, management port and services share it; what differs is the exchange (`backstay.http.application`
answers in this process, the gateway's proxies) and how a refusal looks. Its rules:

- Every phase has a deadline (`backstay.http.phases`), also while closing. A client that sends or takes less than
  `MIN_RATE` is given up, whatever phase it is in.
- Nothing is read while there is no room: a request waits to be answered, the exchange holds its body back, or the
  client doesn't take its answers. Nothing of the next request is answered while the client hasn't taken the last one.
- At most `FEED_BYTES` are parsed ahead, so a pipeline is bounded whatever a read brings; and no more in one turn of the
  event loop, so a client that makes its bytes dear to parse delays the others by one piece.

TLS is a matter of the listener's socket; a connection only asks its transport whether it can be half-closed. A
protocol that replaces HTTP/1.1 (Upgrade, HTTP/2 by ALPN) takes over the transport and the place in the listener.
"""

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from backstay.http.errors import FramingError
from backstay.http.framing import DISCARD_BYTES, Limits, RequestHead, RequestReader
from backstay.http.phases import MIN_RATE, NEVER, Phase, Timeouts

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
FEED_BYTES = 16 * 1024
"""Bytes given to the parser at a time."""
BURST = 32
"""Requests of one connection that are begun before the event loop turns to the others."""


class Exchange(Protocol):
    """One request and its answer, as its connection sees it."""

    head: RequestHead
    complete: bool
    """The request has arrived to its end."""
    unasked: bool
    """The client waits for `100 Continue`, which it hasn't got: it may send the body or not."""

    @property
    def holds_input(self) -> bool:
        """True if no more of the body may be read for now."""

    def begin(self) -> None:
        """It is this request's turn. Called once; the answer ends in `InboundConnection.answered`."""

    def body_received(self, data: bytes) -> None:
        """A piece of the body."""

    def request_complete(self) -> None:
        """The body is complete. Called only if there is one."""

    def refuse(self, error: FramingError) -> None:
        """The rest of the request can't be read, or doesn't arrive: answer so if nothing was answered yet."""

    def client_gone(self) -> None:
        """The connection is gone, or will be when what was written has left."""

    def client_writable(self, writable: bool) -> None:
        """The client takes the answer more slowly than it is written, or has caught up."""

    def expire(self) -> None:
        """The deadline that the exchange has set is over."""


class Owner(Protocol):
    """The listener, as a connection sees it."""

    limits: Limits
    timeouts: Timeouts
    deadlines: tuple[float, ...]
    draining: bool

    @property
    def time(self) -> Callable[[], float]:
        """The clock: monotonic seconds."""

    def opened(self, connection: "InboundConnection") -> bool:
        """A connection was accepted; False if there is no room for it."""

    def ending(self, connection: "InboundConnection") -> None:
        """Nothing is answered on the connection any more."""

    def closed(self, connection: "InboundConnection") -> None:
        """The connection is gone."""


class InboundConnection(RequestReader, asyncio.Protocol):
    """One client. A subclass makes the exchanges and the bytes of a refusal."""

    __slots__ = (
        "_advancing",
        "_arriving",
        "_begun",
        "_current",
        "_exchange_deadline",
        "_feed_planned",
        "_feeding",
        "_loop",
        "_phase_deadline",
        "_queue",
        "_reading",
        "_receive_deadline",
        "_received",
        "_refused",
        "_send_deadline",
        "_time",
        "_unfed",
        "_unsent",
        "_written",
        "address",
        "deadline",
        "listener",
        "phase",
        "transport",
        "writable",
    )

    transport: asyncio.Transport

    def __init__(self, listener: Owner) -> None:
        super().__init__(listener.limits)
        self.listener = listener
        self.address = "unknown"
        """Of the other end, without the port."""
        self.phase = Phase.CONNECTED
        self.writable = True
        """The transport has room for more of an answer."""
        self._time = listener.time
        self.deadline = self._phase_deadline = self._time() + listener.deadlines[Phase.CONNECTED]
        self._exchange_deadline = self._send_deadline = self._receive_deadline = NEVER
        self._received = 0  # bytes of the body when the receive window began
        self._unsent = 0  # bytes unsent when the send window began
        self._written = 0  # bytes written since then
        self._arriving: Exchange | None = None
        self._current: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._unfed = b""  # read, and not parsed yet
        self._feeding = False  # the parser must not be entered again
        self._feed_planned = False  # the next piece of `_unfed` is parsed in the next turn of the event loop
        self._reading = True
        self._refused: FramingError | None = None
        self._advancing = False
        self._begun = 0  # exchanges since the event loop last turned

    # -- for the subclass
    @abstractmethod
    def new_exchange(self, head: RequestHead) -> Exchange:
        """Return the exchange that answers a request."""

    @abstractmethod
    def refusal(self, error: FramingError) -> bytes:
        """Return the answer to a malformed request, with `connection: close`."""

    # -- asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._loop = asyncio.get_running_loop()
        peer = transport.get_extra_info("peername")
        if peer:
            self.address = str(peer[0])
        if not self.listener.opened(self):
            self.phase = Phase.CLOSING
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.phase = Phase.CLOSED
        self.deadline = NEVER
        self.listener.closed(self)
        self._let_go()
        self.let_go_of_parser()

    def eof_received(self) -> bool:
        self._let_go()
        self.close()
        return True  # the transport is closed already, with a deadline

    def data_received(self, data: bytes) -> None:
        if self.phase >= Phase.LINGERING or self._refused is not None:
            return
        self._begun = 0
        if self._unfed or len(data) > FEED_BYTES:
            self._unfed += data
            self._feed_rest()
        else:
            self._parse(data)

    def pause_writing(self) -> None:
        self.writable = False
        self._watch_sending()
        if self._current is not None:
            self._current.client_writable(False)
        self.update_reading()

    def resume_writing(self) -> None:
        self.writable = True
        if self.phase >= Phase.LINGERING:  # what is left still has to be taken in time
            return
        self._send_deadline = NEVER
        self._schedule()
        self._begun = 0
        if self._current is not None:
            self._current.client_writable(True)
        elif self.phase is Phase.SENDING:
            self._advance()
        self.update_reading()

    # -- the reader's hooks
    def head_received(self, head: RequestHead) -> None:
        exchange = self._arriving = self.new_exchange(head)
        if not exchange.complete:
            self._take_up(exchange)

    def body_received(self, data: bytes) -> None:
        exchange = self._arriving
        if exchange is not None:
            exchange.body_received(data)
            if exchange.holds_input is self._reading:
                self.update_reading()

    def message_received(self) -> None:
        exchange, self._arriving = self._arriving, None
        if exchange is None:
            return
        if exchange.complete:  # it has no body
            self._take_up(exchange)
            return
        self._receive_deadline = NEVER
        exchange.request_complete()
        if self.phase is Phase.DISCARDING:
            self._advance()
        else:
            self._schedule()
            self.update_reading()

    # -- for the exchange
    @property
    def busy(self) -> bool:
        """True if a request is being answered."""
        return self._current is not None

    def write(self, data: bytes | memoryview) -> None:
        """Send to the client; nothing once the connection ends."""
        if self.phase < Phase.LINGERING:
            self._written += len(data)
            self.transport.write(data)

    def write_continue(self, exchange: Exchange) -> None:
        """Send `100 Continue`, once."""
        if exchange.unasked:
            exchange.unasked = False
            self.write(CONTINUE)
            self._watch_receiving()

    def expire_at(self, deadline: float) -> None:
        """Call `Exchange.expire` of the current exchange then."""
        self._exchange_deadline = deadline
        self._schedule()

    def update_reading(self) -> None:
        """Read from the client only while there is room for what it sends."""
        if self.phase >= Phase.CLOSING:
            return
        if self._unfed and not self._feed_planned and self._has_room():
            self._feed_rest()
            return
        held = self._arriving is not None and self._arriving.holds_input
        room = self.writable and not (held or self._queue or self._unfed)
        wanted = self.phase is Phase.LINGERING or (room and not (self._refused is not None and self.busy))
        if wanted is self._reading:
            return
        self._reading = wanted
        if wanted:
            self.transport.resume_reading()
            self._watch_receiving()
        else:
            self.transport.pause_reading()
            self._receive_deadline = NEVER
            self._schedule()

    def keeps(self, exchange: Exchange, *, whole: bool = True) -> bool:
        """Return whether the connection can go on after an answer; `whole`: it is complete now, else it has begun.

        What is left of an unwanted body is read away if it is little.
        """
        if not exchange.head.keep_alive or self.listener.draining or self.phase >= Phase.LINGERING:
            return False
        if exchange.complete:
            return True
        if exchange.unasked or self._refused is not None:
            return False
        length = exchange.head.length
        return whole if length is None else length - self._body_seen <= DISCARD_BYTES

    def answered(self, exchange: Exchange, *, keep: bool) -> None:
        """Record that the answer of the current exchange is complete. keep: it didn't announce a close."""
        if self._current is not exchange or self.phase >= Phase.LINGERING:
            return
        self._current = None
        self._exchange_deadline = NEVER
        if not exchange.complete:
            if keep and self.discard_body(exchange.head, DISCARD_BYTES):
                self._enter(Phase.DISCARDING)
                self.update_reading()
            else:
                self._linger()
        elif not keep:
            self.close()
        elif self._queue or self._unfed or not self.writable or self._refused is not None or self.listener.draining:
            self._advance()
        else:
            self._enter(Phase.IDLE if self.between_messages else Phase.HEAD)
            if not self._reading:
                self.update_reading()

    # -- the end
    def drain(self) -> None:
        """Close if nothing has begun; else the exchange in flight, or the one that arrives, is the last."""
        if self.phase <= Phase.IDLE:
            self.close()

    def close(self) -> None:
        """Close when all that was written has been taken, if it is in time."""
        if self.phase >= Phase.CLOSING:
            return
        self._watch_sending()
        self._end(Phase.CLOSING)
        self.transport.close()

    def abort(self) -> None:
        """Cut it: the client must not take what it got for a whole answer."""
        if self.phase < Phase.CLOSING:
            self._end(Phase.CLOSING)
        self.transport.abort()

    def _linger(self) -> None:
        """Close, but not before the client could read the answer: closing at once could destroy it on its way."""
        if self.transport.is_closing():
            self.close()
            return
        self._watch_sending()
        self._end(Phase.LINGERING)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.update_reading()

    def _end(self, phase: Phase) -> None:
        self._unfed = b""
        self._exchange_deadline = self._receive_deadline = NEVER
        self._enter(phase)
        self.listener.ending(self)

    def _let_go(self) -> None:
        """Drop all requests of a client that has left."""
        current, self._current = self._current, None
        self._arriving = None
        self._queue.clear()
        self._unfed = b""
        if current is not None:
            current.client_gone()

    # -- requests, one at a time
    def _parse(self, data: bytes) -> None:
        self._feeding = True
        try:
            self.feed(data)
        except FramingError as error:
            self._feeding = False
            self._refuse(error)
        finally:
            self._feeding = False
        if self.phase <= Phase.IDLE and not self.between_messages:
            self._enter(Phase.HEAD)

    def _feed_rest(self) -> None:
        """Parse the next piece of what was read; the one after it when the other connections have had their turn."""
        if self._feed_planned:
            return
        if self._unfed and self._has_room():
            piece, self._unfed = self._unfed[:FEED_BYTES], self._unfed[FEED_BYTES:]
            self._parse(piece)
            if self._unfed and not self._feed_planned:
                self._feed_planned = True
                self._loop.call_soon(self._feed_later)
        self.update_reading()

    def _feed_later(self) -> None:
        self._feed_planned = False
        self._begun = 0
        if self._current is None and self.phase is not Phase.DISCARDING:
            self._advance()
        else:
            self._feed_rest()

    def _has_room(self) -> bool:
        if self._feeding or self._queue or self._refused is not None or self.phase >= Phase.LINGERING:
            return False
        arriving = self._arriving
        return self.writable and (self._current is None or (arriving is self._current and not arriving.holds_input))

    def _take_up(self, exchange: Exchange) -> None:
        """Begin an exchange, or let it wait for those before it."""
        if self._current is None and not self._queue and self.writable and self._begun < BURST:
            self._begin(exchange)
            return
        self._queue.append(exchange)
        self.update_reading()
        if self._current is None and self.writable and len(self._queue) == 1:
            self._loop.call_soon(self._advance_later)

    def _begin(self, exchange: Exchange) -> None:
        self._current = exchange
        self._begun += 1
        self.phase = Phase.EXCHANGE
        self._phase_deadline = NEVER
        self._schedule()
        if not exchange.complete and not exchange.unasked:
            self._watch_receiving()
        exchange.begin()

    def _advance_later(self) -> None:
        self._begun = 0
        if self._current is None and self.phase < Phase.LINGERING:
            self._advance()

    def _advance(self) -> None:
        """Take up what waits, or rest. A loop: an exchange may be answered before its `begin` returns."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._current is None and self.phase < Phase.LINGERING and self._take_next():
                pass
        finally:
            self._advancing = False
        self.update_reading()

    def _take_next(self) -> bool:
        """One step of `_advance`; False if there is nothing more to do now."""
        if not self.writable:
            self._enter(Phase.SENDING)
            return False
        if self._queue:
            if self._begun >= BURST:
                self._loop.call_soon(self._advance_later)
                return False
            self._begin(self._queue.popleft())
            return True
        if self._refused is not None:
            self._answer_refused(self._refused)
            return False
        if self._unfed and not self._feeding and not self._feed_planned:
            self._feed_rest()
            return True
        if self.listener.draining and not self._unfed:
            self.close()
        else:
            self._enter(Phase.IDLE if self.between_messages and not self._unfed else Phase.HEAD)
        return False

    # -- what can't be understood, or doesn't arrive
    def _refuse(self, error: FramingError) -> None:
        """Stop reading after an error: answer it after the pending answers, and end."""
        self._refused = FramingError(error.status, error.reason)  # without the frames, which hold all that was read
        self._unfed = b""
        self._receive_deadline = NEVER
        arriving, self._arriving = self._arriving, None
        if self.phase >= Phase.LINGERING:  # it was answered, and what follows is read away
            return
        if arriving is not None and arriving is self._current:
            arriving.refuse(error)
        elif self.phase is Phase.DISCARDING:
            self._linger()
        else:
            if arriving is not None and arriving in self._queue:
                self._queue.remove(arriving)
            if self._current is None and not self._queue:
                self._answer_refused(error)
        self._schedule()
        self.update_reading()

    def _answer_refused(self, error: FramingError) -> None:
        self.write(self.refusal(error))
        self._linger()

    # -- time
    def expire(self) -> None:
        """A deadline has passed."""
        now = self._time()
        if self._send_deadline <= now and not self._still_taking():
            self.abort()
        elif self._receive_deadline <= now and not self._still_sending():
            self._refuse(FramingError(408, "the request body didn't arrive in time"))
        elif self._exchange_deadline <= now and self._current is not None:
            self._exchange_deadline = NEVER
            self._current.expire()
        elif self._phase_deadline <= now:
            self._expire_phase(now)
        self._schedule()

    def _expire_phase(self, now: float) -> None:
        self._phase_deadline = NEVER
        match self.phase:
            case Phase.CONNECTED | Phase.IDLE:
                self.close()
            case Phase.HEAD:
                self._refuse(FramingError(408, "the request didn't arrive in time"))
            case Phase.DISCARDING:
                self._linger()
            case Phase.LINGERING if self.transport.get_write_buffer_size():
                self._phase_deadline = now + self.listener.deadlines[Phase.LINGERING]  # it can't have read it yet
            case Phase.LINGERING:
                self.close()
            case Phase.CLOSING if self.transport.get_write_buffer_size():
                self._phase_deadline = now + self.listener.deadlines[Phase.CLOSING]  # as long as it takes enough
            case _:
                self.abort()

    def _watch_sending(self) -> None:
        """The client has to take enough of what is unsent from now on."""
        self._unsent = self.transport.get_write_buffer_size()
        self._written = 0
        self._send_deadline = self._time() + self.listener.timeouts.stall if self._unsent else NEVER
        self._schedule()

    def _still_taking(self) -> bool:
        owed = self._unsent + self._written
        taken = owed - self.transport.get_write_buffer_size()
        if taken < min(MIN_RATE * self.listener.timeouts.stall, owed):
            return False
        self._watch_sending()
        return True

    def _watch_receiving(self) -> None:
        """The client has to send enough of its body from now on, unless it waits for us."""
        arriving = self._arriving
        if arriving is not None and arriving.head.has_body and not arriving.unasked and arriving is self._current:
            self._received = self._body_seen
            self._receive_deadline = self._time() + self.listener.timeouts.body
            self._schedule()

    def _still_sending(self) -> bool:
        if self._body_seen - self._received < MIN_RATE * self.listener.timeouts.body:
            return False
        self._watch_receiving()
        return True

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._phase_deadline = self._time() + self.listener.deadlines[phase]
        self._schedule()

    def _schedule(self) -> None:
        nearest = self._phase_deadline
        if self._exchange_deadline < nearest:
            nearest = self._exchange_deadline
        if self._send_deadline < nearest:
            nearest = self._send_deadline
        if self._receive_deadline < nearest:
            nearest = self._receive_deadline
        self.deadline = nearest


__all__ = ["BURST", "CONTINUE", "FEED_BYTES", "Exchange", "InboundConnection", "Owner"]
