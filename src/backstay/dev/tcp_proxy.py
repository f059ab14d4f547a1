"""A TCP proxy in front of a broker or a database, whose connections can be cut, refused, delayed and held.

A fault can be meant for one process alone. The owner of a connection is looked up only then, since that takes time in
which all others would wait. The order of bytes is kept whatever changes meanwhile.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, cast

from backstay.dev.ports import HOST

CONNECT_TIMEOUT = 5.0  # seconds
MOST_HELD = 4 << 20  # bytes on their way in one direction before the sender is told to wait
RESET = struct.pack("ii", 1, 0)  # SO_LINGER 0: the other side sees a reset

Kind = Literal["refuse", "delay", "hold"]


@dataclass(frozen=True, eq=False, slots=True)
class ConnectionFault:
    """A fault of connections. `who` are processes; None means all of them. `delay` in seconds each way."""

    kind: Kind
    who: frozenset[str] | None = None
    delay: float = 0.0

    def meets(self, owner: str | None) -> bool:
        """Return whether a connection of that process suffers it."""
        return self.who is None or owner in self.who


class TcpProxy:
    """Listens on `port` and passes on to `target`, both on the loopback. An async context manager."""

    def __init__(
        self, port: int, target: int, *, owners: Callable[[Collection[int]], Mapping[int, str]] = lambda _ports: {}
    ) -> None:
        """Listen for `target`; `owners` returns the processes behind clients' ports."""
        self.port, self.target = port, target
        self._owners = owners
        self._troubles: list[ConnectionFault] = []
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Link(self).client, HOST, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._troubles.clear()
        self.cut()

    def cut(self, who: Collection[str] | None = None) -> int:
        """Reset the connections of these processes, of all if None; new ones come through. Returns how many it were."""
        if who is not None:
            self._ask(self._links)
        links = [link for link in self._links if who is None or link.owner in who]
        for link in links:
            link.abort()
        return len(links)

    @contextmanager
    def trouble(self, kind: Kind, who: Collection[str] | None = None, *, delay: float = 0.0) -> Iterator[None]:
        """ConnectionFault as long as the context lasts; `refuse` also cuts what is there."""
        trouble = ConnectionFault(kind, None if who is None else frozenset(who), delay)
        if who is not None:
            self._ask(self._links)
        self._troubles.append(trouble)
        if kind == "refuse":
            self.cut(who)
        try:
            yield
        finally:
            self._troubles.remove(trouble)
            for link in list(self._links):
                link.move()

    def _of(self, owner: str | None, kind: Kind) -> list[ConnectionFault]:
        return [trouble for trouble in self._troubles if trouble.kind == kind and trouble.meets(owner)]

    def _ask(self, links: Collection["_Link"]) -> None:
        """Find the owners of these connections, where they are not known yet."""
        unknown = {link.port: link for link in links if not link.asked}
        owners = self._owners(list(unknown)) if unknown else {}
        for port, link in unknown.items():
            link.owner, link.asked = owners.get(port), True


class _Link:
    """A client's connection and ours to the target."""

    def __init__(self, door: TcpProxy) -> None:
        self.door = door
        self.owner: str | None = None
        self.asked = False
        self.port = 0
        self.client, self.server = _Side(self), _Side(self)
        self._opening: asyncio.Task[None] | None = None

    def other(self, side: "_Side") -> "_Side":
        return self.server if side is self.client else self.client

    def open(self, transport: asyncio.Transport) -> None:
        """The client is there: pass its bytes on as soon as the target is."""
        self.port = (transport.get_extra_info("peername") or ("", 0))[1]
        if any(trouble.who is not None for trouble in self.door._troubles):
            self.door._ask([self])
        if self.door._of(self.owner, "refuse"):
            _reset(transport)
            return
        self.door._links.add(self)
        transport.pause_reading()
        self._opening = asyncio.ensure_future(self._connect(transport))

    async def _connect(self, client: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await loop.create_connection(lambda: self.server, HOST, self.door.target)
        except (OSError, TimeoutError):
            self.abort()
            return
        if not client.is_closing():
            client.resume_reading()

    def delay(self) -> float | None:
        """Seconds that bytes are on their way now; None while they are held."""
        if self.door._of(self.owner, "hold"):
            return None
        return sum(trouble.delay for trouble in self.door._of(self.owner, "delay"))

    def move(self) -> None:
        self.client.move()
        self.server.move()

    def abort(self) -> None:
        self.door._links.discard(self)
        for side in (self.client, self.server):
            side.drop()


class _Side(asyncio.Protocol):
    """One of the two connections; `waiting` holds what is on its way out of it."""

    def __init__(self, link: _Link) -> None:
        self.link = link
        self.transport: asyncio.Transport | None = None
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.held = 0
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self is self.link.client:
            self.link.open(self.transport)
        else:
            self.move()

    def data_received(self, data: bytes) -> None:
        """Bytes for the other side: at once when nothing stands in their way."""
        out, delay = self.link.other(self), self.link.delay()
        if delay == 0.0 and not out.waiting and out.transport is not None:
            out.transport.write(data)
            return
        out.waiting.append((asyncio.get_running_loop().time(), data))
        out.held += len(data)
        if out.held > MOST_HELD and self.transport is not None:
            self.transport.pause_reading()
        out.move()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        other = self.link.other(self)
        self.link.door._links.discard(self.link)
        other._ended = True
        other.move()

    def pause_writing(self) -> None:
        source = self.link.other(self).transport
        if source is not None:
            source.pause_reading()

    def resume_writing(self) -> None:
        source = self.link.other(self).transport
        if source is not None and not source.is_closing():
            source.resume_reading()

    def move(self) -> None:
        """Send what is due, and come again for the rest."""
        delay, now = self.link.delay(), asyncio.get_running_loop().time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.transport is None or delay is None:
            return
        was_full = self.held > MOST_HELD
        while self.waiting and self.waiting[0][0] + delay <= now:
            _, data = self.waiting.popleft()
            self.held -= len(data)
            self.transport.write(data)
        if self.waiting:
            self._timer = asyncio.get_running_loop().call_at(self.waiting[0][0] + delay, self.move)
        elif self._ended:
            self.transport.close()
        if was_full and self.held <= MOST_HELD:
            self.resume_writing()

    def drop(self) -> None:
        self.waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self.transport is not None:
            _reset(self.transport)


def _reset(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    transport.abort()


__all__ = ["ConnectionFault", "TcpProxy"]
