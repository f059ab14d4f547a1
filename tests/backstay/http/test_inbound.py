"""One client that is slow, silent or gone costs itself its connection, on every server, in every phase.

All servers stand on the same connection; these tests run against each of them all the same: gateway, the small server
(management ports), the registry, and the service kit. The clock is the test's: nothing waits for a time-out.
"""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from backstay.discovery import RegistryServer, StaticRegistry
from backstay.gateway import Gateway, GatewayOptions, RouteTable, read_definition
from backstay.http import HttpReply, HttpRequest, HttpServer
from backstay.http.inbound import FEED_BYTES, InboundConnection
from backstay.http.listener import Bounds, Listener
from backstay.http.phases import MIN_RATE, Phase, Timeouts
from backstay.service.server import Server, bind
from backstay.testing import eventually

LARGE = b"x" * 8_000_000
"""More than the kernel's buffers on both sides take."""
ROUTES = """
spring.cloud.gateway.routes:
- {id: a, uri: "http://127.0.0.1:%d", metadata: {public: true, response-timeout: 100000}, predicates: [Path=/**]}
"""
UNSENT = 512 * 1024
"""The most that one connection may keep for a client that doesn't read; a gateway has one read of the upstream more."""
HELD = b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n"
SMALL = b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n"
BIG = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /small HTTP/1.1\r\nHost: a\r\n"
SERVERS = ("gateway", "management", "registry", "service")


@dataclass
class Served:
    """A server of some kind, with the clock in the test's hand."""

    port: int
    listener: Listener
    release: asyncio.Event = field(default_factory=asyncio.Event)
    now: float = 1000.0
    wires: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener.time = lambda: self.now
        self.listener.ticker.tick = 1e6  # only the test lets time pass

    async def connect(self, data: bytes = b"") -> socket.socket:
        wire = socket.socket()
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.setblocking(False)
        self.wires.append(wire)
        known = set(self.listener.connections)
        await asyncio.get_running_loop().sock_connect(wire, ("127.0.0.1", self.port))
        await eventually(lambda: self.listener.connections - known)
        if data:
            await asyncio.get_running_loop().sock_sendall(wire, data)
        return wire

    @property
    def connection(self) -> InboundConnection:
        (found,) = self.listener.connections
        return found

    async def reaches(self, phase: Phase) -> None:
        await eventually(lambda: {each.phase for each in self.listener.connections} == {phase}, timeout=20)

    def after(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.listener.ticker.expire(self.now)

    async def emptied(self) -> None:
        await eventually(lambda: not self.listener.connections, timeout=20)


async def upstream(served: Callable[[], Served], stack: AsyncExitStack) -> int:
    """What stands behind the gateway: the same answers as everywhere here."""

    async def answer(request: HttpRequest) -> HttpReply:
        if request.path == "/held":
            await served().release.wait()
        return HttpReply(200, LARGE if request.path == "/large" else b"small")

    return (await stack.enter_async_context(HttpServer(answer, drain=0.01))).port


async def asgi(scope: Any, receive: Any, send: Any, *, served: Callable[[], Served]) -> None:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message["more_body"]
    if scope["path"] == "/held":
        await served().release.wait()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": LARGE if scope["path"] == "/large" else b"small"})


async def started(kind: str, stack: AsyncExitStack, timeouts: Timeouts, bounds: Bounds) -> Served:
    made: list[Served] = []

    async def function(request: HttpRequest) -> HttpReply:
        if request.path == "/held":
            await made[0].release.wait()
        return HttpReply(200, LARGE if request.path == "/large" else b"small")

    if kind == "gateway":
        behind = await upstream(lambda: made[0], stack)
        table = RouteTable(read_definition(ROUTES % behind, {}))
        gateway = Gateway(table, StaticRegistry({}), options=GatewayOptions(drain_timeout=0.01))
        gateway.listener.bounds = bounds
        await stack.enter_async_context(gateway)
        made.append(Served(gateway.port, gateway.listener))
    elif kind == "service":
        listening = stack.enter_context(closing(bind("127.0.0.1", 0)))

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asgi(scope, receive, send, served=lambda: made[0])

        server = Server(app, listening, keep_alive=60.0, drain=0.01, timeouts=timeouts, bounds=bounds)
        await stack.enter_async_context(server)
        made.append(Served(server.port, server.listener))
    else:
        http = HttpServer(function, timeouts=timeouts, bounds=bounds, drain=0.01)
        if kind == "registry":
            registry = RegistryServer(port=0)
            registry._server = http  # the registry's own answers are small; how they go out is what is tested
            await stack.enter_async_context(registry)
        else:
            await stack.enter_async_context(http)
        made.append(Served(http.port, http.listener))
    return made[0]


@pytest.fixture(params=SERVERS)
async def served(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    async with AsyncExitStack() as stack:
        server = await started(request.param, stack, Timeouts(), Bounds(per_address=3, exempt=lambda _: False))
        stack.callback(lambda: [wire.close() for wire in server.wires])
        yield server
        server.release.set()


async def read_all(wire: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    found = b""
    async with asyncio.timeout(20):
        try:
            while piece := await asyncio.get_running_loop().sock_recv(wire, 65536):
                found += piece
        except ConnectionError:
            pass
    return found


async def test_a_client_that_never_reads_one_answer(served: Served) -> None:
    """Only a bounded part of the answer is held for it, and it is cut when it took nothing for the stall time."""
    await served.connect(BIG)
    await eventually(lambda: not served.connection.writable, timeout=20)

    assert served.connection.transport.get_write_buffer_size() < UNSENT
    served.after(29)
    assert len(served.listener.connections) == 1
    served.after(2)
    await served.emptied()


async def test_a_client_that_pipelines_and_never_reads(served: Served) -> None:
    """Thousands of requests in one go: few are answered, little is held, and the client is cut."""
    wire = await served.connect()
    flood = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(wire, BIG * 3000))
    await eventually(
        lambda: served.connection.phase is not Phase.CONNECTED and not served.connection.writable, timeout=20
    )

    connection = served.connection
    assert connection.transport.get_write_buffer_size() < UNSENT
    assert len(connection._queue) < 1000
    assert not connection._reading
    served.after(31)
    await served.emptied()
    flood.cancel()


async def test_a_client_that_reads_a_byte_a_second(served: Served) -> None:
    """Taking something isn't enough: below the least rate the client is cut, though it goes on reading."""
    wire = await served.connect(BIG)
    await eventually(lambda: not served.connection.writable, timeout=20)
    for _ in range(4):
        for _ in range(8):
            await asyncio.get_running_loop().sock_recv(wire, 1)
            served.after(1)
    assert await read_rest_slowly(served, wire)
    await served.emptied()


async def read_rest_slowly(served: Served, wire: socket.socket) -> bool:
    """One byte a second until the server has given up; False if it doesn't."""
    for _ in range(120):
        if not served.listener.connections or served.connection.phase is Phase.CLOSING:
            return True
        try:
            await asyncio.get_running_loop().sock_recv(wire, 1)
        except ConnectionError:
            return True
        served.after(1)
    return False


async def test_a_client_that_reads_fast_enough_is_kept(served: Served) -> None:
    """However large the answer and however often time passes, who takes it gets all of it."""
    wire = await served.connect(BIG.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    found = 0
    async with asyncio.timeout(60):
        while piece := await asyncio.get_running_loop().sock_recv(wire, 262144):
            found += len(piece)
            served.after(0.02)

    assert found > len(LARGE)


async def test_a_client_that_sends_a_byte_in_14_seconds(served: Served) -> None:
    """A body has to arrive at the least rate, not only to move: 408."""
    wire = await served.connect(POST + b"Content-Length: 100000\r\n\r\n")
    await served.reaches(Phase.EXCHANGE)
    for _ in range(2):
        if served.connection.phase is not Phase.EXCHANGE:
            break
        before = served.connection._body_seen
        await asyncio.get_running_loop().sock_sendall(wire, b"x")
        await eventually(lambda before=before: served.connection._body_seen > before)
        served.after(14)

    assert (await read_all(wire)).startswith(b"HTTP/1.1 408 ")


async def test_a_body_at_the_least_rate_is_taken(served: Served) -> None:
    """A slow connection isn't a hostile one."""
    size = int(MIN_RATE * 15)
    wire = await served.connect(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (4 * size))
    await served.reaches(Phase.EXCHANGE)
    for number in range(1, 5):
        await asyncio.get_running_loop().sock_sendall(wire, b"x" * size)
        if number < 4:
            await eventually(lambda number=number: served.connection._body_seen == number * size)
            served.after(14.9)

    assert b" 200 " in (await read_all(wire)).partition(b"\r\n")[0]


async def test_a_head_that_comes_byte_by_byte(served: Served) -> None:
    """The time for a head counts from its first byte, whatever follows: 408."""
    wire = await served.connect()
    for byte in b"GET /small H":
        await asyncio.get_running_loop().sock_sendall(wire, bytes([byte]))
        await eventually(lambda: served.connection.phase is Phase.HEAD)
        served.after(1)
        if served.connection.phase is not Phase.HEAD:
            break

    assert (await read_all(wire)).startswith(b"HTTP/1.1 408 ")


async def test_silence(served: Served) -> None:
    """A connection that asks for nothing is closed without a word, before its first request and after it."""
    silent = await served.connect()
    served.after(9)
    assert served.connection.phase is Phase.CONNECTED
    served.after(2)
    assert await read_all(silent) == b""

    kept = await served.connect(SMALL)
    await served.reaches(Phase.IDLE)
    served.after(59)
    assert served.connection.phase is Phase.IDLE
    served.after(2)
    assert (await read_all(kept)).count(b"HTTP/1.1 200 ") == 1


async def lingering(served: Served) -> socket.socket:
    wire = await served.connect(b"nonsense\r\n\r\n")
    await served.reaches(Phase.LINGERING)
    return wire


async def discarding(served: Served) -> socket.socket:
    wire = await served.connect(SMALL)
    await served.reaches(Phase.IDLE)
    connection = served.connection
    await asyncio.get_running_loop().sock_sendall(wire, POST + b"Content-Length: 100\r\n\r\n")
    await served.reaches(Phase.EXCHANGE)
    current = connection._current
    assert current is not None
    connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    connection.answered(current, keep=connection.keeps(current))
    current.client_gone()
    assert connection.phase is Phase.DISCARDING
    return wire


async def closing_phase(served: Served) -> socket.socket:
    wire = await served.connect(BIG)
    await eventually(lambda: not served.connection.writable, timeout=20)
    served.connection.close()
    return wire


async def sending(served: Served) -> socket.socket:
    wire = await served.connect(SMALL)
    await served.reaches(Phase.IDLE)
    served.connection.write(LARGE)  # the end of an answer that is larger than all buffers
    served.connection._advance()
    assert served.connection.phase is Phase.SENDING
    return wire


async def connected(served: Served) -> socket.socket:
    return await served.connect()


async def idle(served: Served) -> socket.socket:
    wire = await served.connect(SMALL)
    await served.reaches(Phase.IDLE)
    return wire


async def head(served: Served) -> socket.socket:
    wire = await served.connect(b"GET / HT")
    await served.reaches(Phase.HEAD)
    return wire


async def exchange(served: Served) -> socket.socket:
    wire = await served.connect(HELD)
    await served.reaches(Phase.EXCHANGE)
    return wire


PHASES = {
    Phase.CONNECTED: connected,
    Phase.IDLE: idle,
    Phase.HEAD: head,
    Phase.EXCHANGE: exchange,
    Phase.SENDING: sending,
    Phase.DISCARDING: discarding,
    Phase.LINGERING: lingering,
    Phase.CLOSING: closing_phase,
}


def test_every_phase_is_tested() -> None:
    """A new phase has to be left, and to end, like the others."""
    assert set(PHASES) == set(Phase) - {Phase.CLOSED}


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
@pytest.mark.parametrize("how", ["closes", "resets", "half-closes"])
async def test_a_client_that_leaves(served: Served, phase: Phase, how: str) -> None:
    """In whatever phase: its place is free, nothing is left of it, and the next client is served."""
    wire = await PHASES[phase](served)
    if how == "resets":
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    if how == "half-closes":
        wire.shutdown(socket.SHUT_WR)
    else:
        wire.close()
    # Who has to take something first is only seen to have left when its time is over.
    for _ in range(4):
        for _ in range(20):
            await asyncio.sleep(0)
        served.after(31)
    served.release.set()
    await served.emptied()

    good = await served.connect(SMALL.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert (await read_all(good)).startswith(b"HTTP/1.1 200 ")
    await served.emptied()
    assert not served.listener._by_address
    assert not served.listener._tasks


@pytest.mark.parametrize(
    "phase", [phase for phase in PHASES if phase is not Phase.EXCHANGE], ids=lambda each: each.name
)
async def test_no_phase_is_for_ever(served: Served, phase: Phase) -> None:
    """A client that does nothing at all is given up, in whatever phase."""
    await PHASES[phase](served)
    for _ in range(4):
        served.after(61)
        await asyncio.sleep(0)

    await served.emptied()


async def test_a_bound_for_each_address(served: Served) -> None:
    """More connections of one address are closed at once, and counted; a place that is given back can be taken."""
    first = [await served.connect() for _ in range(3)]
    extra = socket.socket()
    extra.setblocking(False)
    await asyncio.get_running_loop().sock_connect(extra, ("127.0.0.1", served.port))
    assert await read_all(extra) == b""
    extra.close()
    assert served.listener.statistics().over_address == 1
    first[0].close()
    await eventually(lambda: len(served.listener.connections) == 2)

    assert b" 200 " in await answer_of(await served.connect(SMALL))


async def answer_of(wire: socket.socket) -> bytes:
    async with asyncio.timeout(20):
        return await asyncio.get_running_loop().sock_recv(wire, 4096)


async def test_exempt_addresses_have_no_bound_of_their_own(served: Served) -> None:
    """Where many clients come from, only the bound of all counts."""
    served.listener.bounds = Bounds(total=5, per_address=1, exempt=lambda address: address == "127.0.0.1")
    for _ in range(5):
        await served.connect()
    extra = socket.socket()
    extra.setblocking(False)
    await asyncio.get_running_loop().sock_connect(extra, ("127.0.0.1", served.port))

    assert await read_all(extra) == b""
    extra.close()
    assert served.listener.statistics().over_total == 1


async def test_many_requests_of_one_client_leave_room_for_others(served: Served) -> None:
    """A pipeline that is read is answered whole and in order."""
    wire = await served.connect()
    sending_all = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(wire, SMALL * 700))
    found = b""
    async with asyncio.timeout(60):
        while found.count(b"HTTP/1.1 200 ") < 700 or not found.endswith(b"small"):
            found += await asyncio.get_running_loop().sock_recv(wire, 65536)
    await sending_all

    assert found.count(b"small") == 700
    await served.reaches(Phase.IDLE)


async def test_a_large_read_is_parsed_one_piece_a_turn(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a byte are dear to parse: a client that sends them delays the others by one piece, not by a read."""
    loop, turn, parsed = asyncio.get_running_loop(), 0, dict[int, int]()
    feed = InboundConnection.feed

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        again.append(loop.call_soon(next_turn))

    def counted(self: InboundConnection, data: bytes) -> None:
        if self is connection:  # the gateway's upstream has connections, too
            parsed[turn] = parsed.get(turn, 0) + len(data)
        feed(self, data)

    wire = await served.connect()
    connection = served.connection
    monkeypatch.setattr(InboundConnection, "feed", counted)
    again = [loop.call_soon(next_turn)]
    try:
        body = b"1\r\nx\r\n" * 20_000
        connection.data_received(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n" + SMALL)
        await eventually(lambda: sum(parsed.values()) > len(body) + len(SMALL))
    finally:
        again[-1].cancel()

    assert max(parsed.values()) <= FEED_BYTES
    assert (await loop.sock_recv(wire, 1000)).startswith(b"HTTP/1.1 ")


ENDED = {
    "answered": SMALL.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    "pipelined": SMALL * 5 + b"nonsense\r\n\r\n",
    "not HTTP": b"nonsense\r\n\r\n",
    "too many fields": b"GET /small HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 300 + b"\r\n",
    "a head too large": b"GET /small HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 30_000,
    "a body that isn't chunked": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("sent", ENDED.values(), ids=ENDED)
async def test_nothing_is_kept_of_a_connection_that_has_ended(served: Served, sent: bytes) -> None:
    """Its memory is free at once, not when the garbage collector looks: that is seldom, and what it keeps is large."""
    gc.collect()
    gc.disable()
    try:
        wire = await served.connect()
        flood = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(wire, sent))
        await read_all(wire)
        wire.close()
        await asyncio.gather(flood, return_exceptions=True)
        await served.emptied()
        await asyncio.sleep(0)
        found = [each for each in gc.get_objects() if isinstance(each, InboundConnection)]
        kept = sum(each.listener is served.listener for each in found)
    finally:
        gc.enable()
    assert kept == 0
