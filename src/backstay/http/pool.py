"""Keep-alive connections by address: the last one used is the first one taken, the others grow old and go."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from backstay.http.connection import Address, Connection
from backstay.http.errors import ConnectFailed, PoolFull
from backstay.metrics import Count

IDLE_SECONDS = 4.0  # shorter than the shortest keep-alive of the servers we know (5 s)
MAX_PER_ADDRESS = 512


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A snapshot of a pool."""

    open: int
    idle: int
    opened: Count
    reused: Count


class Pool:
    """Connections to upstreams. `close` ends idle ones at once and those at work when they are done."""

    def __init__(self, *, idle: float = IDLE_SECONDS, max_per_address: int = MAX_PER_ADDRESS) -> None:
        self._idle_seconds = idle
        self._max = max_per_address
        self._idle: dict[Address, list[Connection]] = {}
        self._open: dict[Address, set[Connection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closing = False
        self._opened = 0
        self._reused = 0
        self._time: Callable[[], float] = time.monotonic  # until the first connection: then the loop's

    def take(self, address: Address) -> Connection | None:
        """Return an idle connection, if there is a fresh one."""
        idle = self._idle.get(address)
        if not idle:
            return None
        now = self._time()
        while idle:
            connection = idle.pop()
            if connection.closed or connection.transport.is_closing():
                continue
            if now - connection.idle_since > self._idle_seconds:
                connection.close()
                continue
            self._reused += 1
            return connection
        return None

    async def connect(self, address: Address, timeout: float) -> Connection:
        """Return a new connection within `timeout` seconds (inf: no limit but the system's); raises ConnectFailed."""
        where = f"{address[0]}:{address[1]}"
        opened = self._open.setdefault(address, set())
        if len(opened) >= self._max:
            raise PoolFull(f"all {self._max} connections to {where} are busy")
        loop = asyncio.get_running_loop()
        self._time = loop.time
        connection = Connection(self, address)
        opened.add(connection)
        try:
            async with asyncio.timeout(None if timeout == float("inf") else timeout):
                await loop.create_connection(lambda: connection, *address)
        except TimeoutError:
            self._forget(connection)
            raise ConnectFailed(f"{where} didn't accept a connection within {timeout:g} s") from None
        except OSError as error:
            self._forget(connection)
            raise ConnectFailed(f"{where} refused the connection: {error}") from error
        except BaseException:
            self._forget(connection)
            raise
        self._opened += 1
        return connection

    def released(self, connection: Connection) -> None:
        """Called by a connection whose exchange ended well."""
        if self._closing:
            connection.close()
            return
        connection.idle_since = self._time()
        idle = self._idle.get(connection.address)
        if idle is None:
            idle = self._idle[connection.address] = []
        idle.append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._idle_seconds, self._sweep)

    def closed(self, connection: Connection) -> None:
        """Called by a connection that is gone."""
        self._forget(connection)
        idle = self._idle.get(connection.address)
        if idle and connection in idle:
            idle.remove(connection)

    def close(self) -> None:
        """Close idle connections, and the others as soon as they come back."""
        self._closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()

    def statistics(self) -> PoolStatistics:
        """Return the present and past numbers of connections."""
        idle = sum(map(len, self._idle.values()))
        return PoolStatistics(sum(map(len, self._open.values())), idle, self._opened, self._reused)

    def _forget(self, connection: Connection) -> None:
        opened = self._open.get(connection.address)
        if opened is not None:
            opened.discard(connection)
            if not opened:
                del self._open[connection.address]

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._idle_seconds
        for address, idle in list(self._idle.items()):
            fresh = [c for c in idle if c.idle_since > oldest]
            for connection in idle:
                if connection.idle_since <= oldest:
                    connection.close()
            if fresh:
                self._idle[address] = fresh
            else:
                del self._idle[address]
        self._sweeper = loop.call_later(self._idle_seconds / 2, self._sweep) if self._idle else None
