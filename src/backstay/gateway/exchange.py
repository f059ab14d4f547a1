"""One request and its answer: admitted, sent to an upstream, streamed back.

The life of an exchange:

    begin ─ refused ────────────────────────────────► answered by ourselves ┐
      └ admitted ─ connecting ─ sent ─ answer begun ─► answered by upstream ├► done
                       ▲          │            │                            │
                       ├ replay ──┘ (once, nothing answered, harmless)      ┘
                       └ another attempt, or the fallback of the route (see `attempts`)

Once a byte of the upstream's answer has gone to the client there is no way back: a failure then cuts the connection.
"""

import asyncio

from backstay.discovery import Instance, NoInstance, Unreachable
from backstay.gateway import problems
from backstay.gateway.admission import Admitted, admit, find_route, trace_of
from backstay.gateway.answering import Framing, framing_of, head_lines
from backstay.gateway.attempts import Attempts
from backstay.gateway.plane import ClientSide, Outcome
from backstay.gateway.problems import Refusal, answer_bytes
from backstay.gateway.routes import Route
from backstay.http.connection import Address, Connection, ResponseHead
from backstay.http.errors import BadResponse, ConnectFailed, ConnectionLost, FramingError, HttpError, PoolFull
from backstay.http.framing import HOP_BY_HOP, RequestHead
from backstay.http.messages import status_line

HELD_BYTES = 64 * 1024  # of a body that waits for its connection before the client is paused
REPLAY_BYTES = 64 * 1024  # of a body that is kept in case the request must be sent again
INSTANCE_PAUSE = 0.05  # seconds between two looks for an instance while there is none
MAX_WAITING = 1000  # requests that wait for an instance, at most
CLIENT_GONE = 499
_CLIENTS = float("inf")  # the connection sees to it that the client sends and takes in time


class Exchange:
    """One request of a client connection, and the sink of its upstream's answer."""

    __slots__ = (
        "_admitted",
        "_attempts",
        "_body",
        "_body_size",
        "_connecting",
        "_connection",
        "_framing",
        "_instance",
        "_keep",
        "_out",
        "_replayable",
        "_route",
        "_started",
        "_status",
        "_upstream_full",
        "_where",
        "complete",
        "done",
        "gateway",
        "head",
        "inbound",
        "trace_id",
        "unasked",
    )

    def __init__(self, inbound: ClientSide, head: RequestHead) -> None:
        self.inbound = inbound
        self.gateway = inbound.gateway
        self.head = head
        self.complete = not head.has_body
        """The request has arrived to its end."""
        self.unasked = not self.complete and head.expects_continue
        """The client waits for 100 Continue and hasn't got it."""
        self.done = False
        """The answer is complete, or there will be none."""
        self.trace_id = ""
        self._route: Route | None = None
        self._admitted: Admitted | None = None
        self._attempts: Attempts | None = None
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._instance: Instance | None = None
        self._where: Address | None = None
        self._body: list[bytes] = []
        self._body_size = 0
        self._replayable = False
        self._upstream_full = False
        self._framing: Framing | None = None
        self._keep = False
        self._status = 0
        self._out: list[bytes] = []
        self._started = 0.0

    # -- from the client's side
    def begin(self) -> None:
        """It is this request's turn."""
        self._started = self.gateway.time()
        head = self.head
        self.trace_id, trace_line = trace_of(head)
        try:
            self._limit_address()
            self._route, asked = find_route(self.gateway, head)
            self._admitted = admit(
                self.gateway, self._route, asked, self.inbound.peer, head, trace_line=trace_line, now=self._started
            )
        except Refusal as refusal:
            self._answer(refusal)
            return
        try:
            self._limit_body(self._admitted.route.actions.max_body)
        except FramingError as error:
            beyond_all = self._admitted.route.actions.max_body is None
            self._answer(problems.malformed(error.status, error.reason), broken=beyond_all)
            return
        self.inbound.write_continue(self)
        self._replayable = self._admitted.repeatable
        self._protect(self._admitted, may_fall_back=True)
        self._set_deadline()
        self._reach(self._admitted)

    def body_received(self, data: bytes) -> None:
        """A piece of the request's body."""
        if self.done:
            return
        if self.head.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._forward(data)
        if self._admitted is not None:
            self._set_deadline()

    def request_complete(self) -> None:
        """The client has sent all of the request."""
        self.complete = True
        if self.done:
            return
        if self.head.chunked:
            self._forward(b"0\r\n\r\n")
        if self._connection is not None:
            self._connection.request_sent = True
            if self._attempts is not None:
                self._attempts.sent()
        if self._admitted is not None:
            self._set_deadline()

    def refuse(self, error: FramingError) -> None:
        """The rest of the request can't be read, or doesn't arrive."""
        if self._framing is not None:
            self._cut(self._status)
        else:
            self._answer(problems.malformed(error.status, error.reason), broken=True)

    def client_gone(self) -> None:
        """The client has closed its connection."""
        if not self.done:
            self.gateway.metrics.client_gone += 1
            self._end(CLIENT_GONE)

    def client_writable(self, writable: bool) -> None:
        """The client takes the answer more slowly than it comes, or has caught up."""
        if self._connection is not None:
            if writable:
                self._connection.resume()
            else:
                self._connection.pause()
        if not self.done and self._admitted is not None:
            self._set_deadline()

    @property
    def holds_input(self) -> bool:
        """No more of the body may be read for now."""
        return not self.done and (self._upstream_full or (self._connection is None and self._body_size > HELD_BYTES))

    def expire(self) -> None:
        """The deadline has passed: the service's, or that of the whole exchange."""
        if self._framing is not None:
            self._cut(self._status)
        elif not self.complete and not self.holds_input:
            self._answer(problems.malformed(408, "the request body didn't arrive in time"), broken=True)
        else:
            refusal = problems.gateway_timeout("the service didn't answer in time")
            self._failed(self._attempts.timed_out() if self._attempts is not None else TimeoutError(), refusal)

    def _limit_address(self) -> None:
        """Count the request against its address, before it costs anything; raises Refusal."""
        peer = self.inbound.peer
        if peer.exempt and not peer.trusts:
            return
        client = peer.client_key(self.head.index)
        if not peer.is_exempt(client):
            self.gateway.guard.limit_address(client, self._started)

    def _limit_body(self, route_limit: int | None) -> None:
        """Refuse a body that is known to be too large before anything is sent; raises FramingError."""
        limit = self.gateway.options.limits.body if route_limit is None else route_limit
        if not self.complete:
            self.inbound.limit_body(self.head, limit)
        elif self._body_size > limit:
            raise FramingError(413, f"the body has more than {limit} bytes")

    # -- towards the upstream
    def _reach(self, admitted: Admitted) -> None:
        """Find an instance and send it the request, on a kept connection if there is one."""
        if self._attempts is not None:
            if (refused := self._attempts.begin(admitted)) is not None:
                self._give_up(refused)
                return
            self._set_deadline()
        try:
            address = self._choose(admitted)
        except Refusal:
            self._connecting = self.gateway.spawn(self._connect(admitted, None))
            return
        connection = self.gateway.pool.take(address)
        if connection is not None:
            self._send(admitted, connection)
        else:
            self._connecting = self.gateway.spawn(self._connect(admitted, address))

    def _choose(self, admitted: Admitted) -> Address:
        target = admitted.route.target
        if target.app is None:
            self._instance = None
            self._where = (target.host, target.port)
            return self._where
        try:
            instance = self._instance = self.gateway.registry.choose(target.app)
            self._where = instance.plain_address()
        except Unreachable as error:
            raise problems.unreachable(str(error), self.gateway.options.retry_after) from None
        except NoInstance:
            raise problems.no_instance(target.app, self.gateway.options.retry_after) from None
        return self._where

    async def _connect(self, admitted: Admitted, address: Address | None) -> None:
        """Connect to that instance, or the next; while there is none, wait a moment for one that comes back."""
        until = self.gateway.time() + self.gateway.options.instance_wait
        tried: set[Address] = set()
        while True:
            if address is not None and not await self._connects(admitted, address):
                return
            if address is not None:
                tried.add(address)
            try:
                address = self._choose(admitted)
            except Refusal as refusal:
                address, none_there = None, refusal
            else:
                none_there = problems.no_instance(str(admitted.route.target.app), self.gateway.options.retry_after)
            if address is None or address in tried:
                if not await self._patient(until):
                    self._failed(NoInstance(str(admitted.route.target.app)), none_there)
                    return
                tried.clear()

    async def _connects(self, admitted: Admitted, address: Address) -> bool:
        """Connect and send; True if another instance has to be found."""
        try:
            connection = await self.gateway.pool.connect(address, admitted.connect_timeout)
        except PoolFull:
            self._give_up(problems.overloaded(self.gateway.options.retry_after))
            return False
        except ConnectFailed as error:
            if self._instance is None:
                self._failed(error, problems.bad_gateway("the service can't be reached"))
                return False
            self.gateway.eject(self._instance)
            return True
        self._connecting = None
        self._send(admitted, connection)
        return False

    async def _patient(self, until: float) -> bool:
        """Wait before the next attempt to find an instance; False when the time is over, or too many requests wait."""
        metrics = self.gateway.metrics
        if self.gateway.time() >= until or metrics.waiting >= MAX_WAITING:
            return False
        metrics.waiting += 1
        try:
            await asyncio.sleep(INSTANCE_PAUSE)
        finally:
            metrics.waiting -= 1
        return True

    def _send(self, admitted: Admitted, connection: Connection) -> None:
        self._connection = connection
        data = b"".join((admitted.before_host, _host(connection.address), admitted.after_host, *self._body))
        self._replayable = self._replayable and self._body_size <= REPLAY_BYTES
        if not self._replayable:
            self._body = []
        connection.start(self, data, head_only=self.head.method == b"HEAD", request_sent=self.complete)
        if self._attempts is not None and self.complete:
            self._attempts.sent()
        if not self.inbound.writable:
            connection.pause()
        self.inbound.update_reading()

    def _forward(self, data: bytes) -> None:
        self._body_size += len(data)
        if self._connection is not None:
            self._connection.write(data)
            self._replayable = self._replayable and self._body_size <= REPLAY_BYTES
            if self._replayable:
                self._body.append(data)
            elif self._body:
                self._body = []
        else:
            self._body.append(data)
            self.inbound.update_reading()

    # -- from the upstream
    def response_interim(self, head: ResponseHead) -> None:
        """Early hints are passed on; 100 Continue was ours to send."""
        if head.status == 103 and self.head.version != "1.0":
            lines = head_lines(head, HOP_BY_HOP)
            self.inbound.write(b"".join((status_line(103), *lines, b"\r\n")))

    def response_started(self, head: ResponseHead) -> None:
        """The head of the answer: from here on there is no way back."""
        admitted = self._admitted
        assert admitted is not None
        if self._attempts is not None and self._taken_back(self._attempts, admitted, head):
            return
        self._body = []
        self._status = head.status
        self._framing = framing = framing_of(head, self.head)
        self._keep = framing is not Framing.CLOSE and self.inbound.keeps(self, whole=False)
        out = self._out
        out.append(status_line(head.status))
        out += head_lines(head, admitted.route.response_drop)
        out.append(admitted.response_lines)
        if framing is Framing.CHUNKED:
            out.append(b"transfer-encoding: chunked\r\n")
        if not self._keep:
            out.append(b"connection: close\r\n")
        elif self.head.version == "1.0":
            out.append(b"connection: keep-alive\r\n")
        out.append(b"\r\n")

    def response_data(self, data: bytes) -> None:
        """A piece of the answer's body."""
        if self._framing is Framing.CHUNKED:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._out.append(data)

    def response_flush(self) -> None:
        """Pass on what has come."""
        if self._out:
            self._flush()
            self._set_deadline()

    def response_ended(self) -> None:
        """The answer is whole."""
        self._connection = None
        if self._framing is Framing.CHUNKED:
            self._out.append(b"0\r\n\r\n")
        self._flush()
        self._end(self._status)
        self.inbound.answered(self, keep=self._keep)

    def response_failed(self, error: HttpError) -> None:
        """There will be no answer, or no more of it."""
        connection, self._connection = self._connection, None
        if self._framing is not None:
            self._flush()
            self._cut(self._status)
        elif connection is not None and self._may_replay(connection, error):
            self._replay(connection.address)
        elif isinstance(error, BadResponse):
            self._failed(error, problems.bad_gateway("the service's answer isn't valid HTTP"))
        else:
            self._failed(error, problems.bad_gateway("the service closed the connection without an answer"))

    def upstream_writable(self, writable: bool) -> None:
        """The upstream takes the request more slowly than it comes, or has caught up."""
        self._upstream_full = not writable
        self._set_deadline()
        self.inbound.update_reading()

    def _may_replay(self, connection: Connection, error: HttpError) -> bool:
        """Return whether the kept connection was closed before the request could have been processed."""
        return isinstance(error, ConnectionLost) and not error.answered and connection.reused and self._replayable

    def _replay(self, address: Address) -> None:
        """Once: the fresh connection isn't a reused one."""
        assert self._admitted is not None
        self.gateway.metrics.replays += 1
        self._upstream_full = False
        self._connecting = self.gateway.spawn(self._connect(self._admitted, address))

    # -- another attempt, or the fallback
    def _protect(self, admitted: Admitted, *, may_fall_back: bool) -> None:
        """Heed the policies of the route."""
        protection = self.gateway.protections.get(admitted.route)
        if protection is not None:
            seconds = admitted.response_timeout
            self._attempts = Attempts(
                protection, self.head, seconds, may_fall_back=may_fall_back, repeatable=admitted.repeatable
            )

    def _taken_back(self, attempts: Attempts, admitted: Admitted, head: ResponseHead) -> bool:
        """Return whether this answer isn't the client's: something else follows."""
        wait = attempts.answered(head, admitted, repeatable=self._replayable)
        if wait is None:
            return attempts.replaces(head.status) and self._fall_back(attempts)
        self._try_again(wait)
        return True

    def _failed(self, error: Exception, refusal: Refusal) -> None:
        """This attempt has no answer; `refusal` is the client's if there is no other."""
        attempts, admitted = self._attempts, self._admitted
        if attempts is None or admitted is None:
            self._answer(refusal)
        elif (wait := attempts.failed(error, admitted, repeatable=self._replayable)) is not None:
            self._try_again(wait)
        else:
            self._give_up(refusal)

    def _give_up(self, refusal: Refusal) -> None:
        """There is no other attempt: the fallback answers, or `refusal`."""
        if self._attempts is None or not self._fall_back(self._attempts):
            self._answer(refusal)

    def _try_again(self, wait: float) -> None:
        self._let_go()
        self.inbound.expire_at(self._started + self.gateway.options.total_timeout)  # the retry has seen to the nearer
        self._connecting = self.gateway.spawn(self._again(wait))

    async def _again(self, wait: float) -> None:
        await asyncio.sleep(wait)
        self._connecting = None
        assert self._admitted is not None
        self._reach(self._admitted)

    def _fall_back(self, attempts: Attempts) -> bool:
        """Send the request to the route's fallback; False if there is none that can be used."""
        path = attempts.fallback
        if path is None or (self._body_size and not self._body):  # what was sent of the body isn't here any more
            return False
        aimed = self.head.aimed_at(path.encode())
        try:
            trace_line = trace_of(self.head)[1]
            route, asked = find_route(self.gateway, aimed)
            now = self.gateway.time()
            admitted = admit(self.gateway, route, asked, self.inbound.peer, aimed, trace_line=trace_line, now=now)
        except Refusal:
            return False
        attempts.abandoned()
        self._let_go()
        self._admitted, self._attempts = admitted, None
        self._replayable = self._replayable and admitted.repeatable
        self._protect(admitted, may_fall_back=False)
        self._reach(admitted)
        return True

    def _let_go(self) -> None:
        """The attempt that was is over."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()
        connecting, self._connecting = self._connecting, None
        if connecting is not None and connecting is not asyncio.current_task():
            connecting.cancel()
        self._upstream_full = False

    # -- the end
    def _flush(self) -> None:
        out = self._out
        if out:
            self.inbound.write(out[0] if len(out) == 1 else b"".join(out))
            self._out = []

    def _answer(self, refusal: Refusal, *, broken: bool = False) -> None:
        """Answer ourselves. `broken`: what the client sends can't be understood any more."""
        if self.done:
            return
        self._keep = not broken and self.inbound.keeps(self)
        extra = self._admitted.response_lines if self._admitted is not None else b""
        self.inbound.write(
            answer_bytes(
                refusal,
                self.head.target.partition(b"?")[0].decode("ascii"),
                self.trace_id,
                keep=self._keep,
                head_only=self.head.method == b"HEAD",
                extra=extra,
            )
        )
        self._end(refusal.status)
        self.inbound.answered(self, keep=self._keep)

    def _cut(self, status: int) -> None:
        self._end(status)
        self.inbound.abort()

    def _end(self, status: int) -> None:
        """Let go of everything and write it down."""
        self.done = True
        self._let_go()
        if self._attempts is not None:
            self._attempts.abandoned()
        self._body = []
        admitted = self._admitted
        self.gateway.record(
            Outcome(
                head=self.head,
                peer=self.inbound.peer,
                route=self._route,
                user=admitted.user if admitted is not None else None,
                upstream=self._where,
                status=status,
                seconds=self.gateway.time() - self._started,
                trace_id=self.trace_id,
            )
        )

    def _set_deadline(self) -> None:
        """The nearest limit of the phase that the exchange is in, of those that aren't the client's."""
        options = self.gateway.options
        if self._framing is not None:
            wait = options.idle_timeout if self.inbound.writable else _CLIENTS
        elif not self.complete:
            wait = options.body_timeout if self.holds_input else _CLIENTS
        else:
            wait = self._admitted.response_timeout if self._admitted is not None else options.response_timeout
        self.inbound.expire_at(min(self.gateway.time() + wait, self._started + options.total_timeout))


def _host(address: Address) -> bytes:
    host, port = address
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()
