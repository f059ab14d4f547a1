"""A listening socket and the inbound connections behind it: how many there may be, their time-outs, the ordered end."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from backstay.http.addresses import address_key, is_loopback
from backstay.http.framing import Limits
from backstay.http.inbound import InboundConnection
from backstay.http.phases import Timeouts
from backstay.http.timers import Ticker

BACKLOG = 2048
"""Connections that may wait to be accepted."""
MAX_CONNECTIONS = 10_000
LAST_SECONDS = 1.0
"""For what is written to leave, after all requests are answered or given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds on the number of connections; more are closed at once."""

    total: int = MAX_CONNECTIONS
    per_address: int | None = None
    """Of one client address (an IPv6 /64); None: no bound of its own."""
    exempt: Callable[[str], bool] = is_loopback
    """Addresses without a bound of their own, because many clients come from there."""


@dataclass(frozen=True, slots=True)
class ListenerStatistics:
    """A snapshot."""

    connections: int
    busy: int
    """Connections whose request is being answered."""
    over_total: int
    """Connections closed at once because there were too many."""
    over_address: int
    """Connections closed at once because their address had too many."""


class Listener:
    """Owns the connections that `connection` makes, and the tasks that answer their requests.

    The end, in order: `stop` accepts nothing new and closes idle connections; `finished` waits for the others;
    `cancel` ends the tasks left over; `abort` cuts what is left.
    """

    def __init__(
        self,
        connection: Callable[[], InboundConnection],
        *,
        limits: Limits,
        timeouts: Timeouts,
        bounds: Bounds | None = None,
    ) -> None:
        self.limits = limits
        self.timeouts = timeouts
        self.deadlines = timeouts.by_phase()
        self.bounds = bounds or Bounds()
        self.draining = False
        self.time: Callable[[], float] = time.monotonic  # finer than uvloop's, on the same clock
        self.ticker = Ticker(clock=self._now)
        self.connections: set[InboundConnection] = set()
        self.context: Context = copy_context()
        """Of the tasks that answer requests; none inherits from the request before it."""
        self._connection = connection
        self._ending: set[InboundConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_address: dict[str, int] = {}
        self._over_total = self._over_address = 0
        self._hurried = False
        self._finished = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def listen(
        self, host: str | None = None, port: int | None = None, *, sock: socket.socket | None = None
    ) -> int:
        """Accept connections, on an address or a bound socket; returns the port."""
        self.context = copy_context()
        where: dict[str, Any] = {"sock": sock} if sock is not None else {"host": host, "port": port}
        self._server = await asyncio.get_running_loop().create_server(self._connection, backlog=BACKLOG, **where)
        return int(self._server.sockets[0].getsockname()[1])

    def statistics(self) -> ListenerStatistics:
        """Return the present numbers of connections, and of those turned away."""
        busy = sum(connection.busy for connection in self.connections)
        return ListenerStatistics(len(self.connections), busy, self._over_total, self._over_address)

    def _now(self) -> float:
        return self.time()

    # -- the end
    def stop(self) -> bool:
        """Accept nothing new and close what is idle; False if that was done before."""
        if self._server is None:
            return False
        self._server.close()
        self._server = None
        self.draining = True
        for connection in list(self.connections):
            connection.drain()
        return True

    def stop_draining(self) -> None:
        """Wait for nothing any longer."""
        self._hurried = True
        self._finished.set()

    async def finished(self, seconds: float) -> None:
        """Return when every request is answered or given up."""
        if not self._hurried:
            await self._wait(seconds, lambda: not self._tasks and self.connections <= self._ending)

    async def cancel(self) -> None:
        """Cancel the tasks that still answer, and await them: they must not use what is stopped next."""
        tasks = list(self._tasks)
        for task in tasks:
            self.give_up(task)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def abort(self) -> None:
        """Give what is written a moment to leave, then cut every connection."""
        if not self._hurried:
            for connection in self.connections - self._ending:
                connection.abort()
        await self._wait(LAST_SECONDS, lambda: not self.connections)
        for connection in list(self.connections):
            connection.abort()
        self.ticker.close()

    async def _wait(self, seconds: float, condition: Callable[[], bool]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    self._finished.clear()
                    await self._finished.wait()
                    if self._hurried:
                        return

    # -- for connections and exchanges
    def opened(self, connection: InboundConnection) -> bool:
        """A connection was accepted; False if there is no room for it."""
        if len(self.connections) >= self.bounds.total:
            self._over_total += 1
            return False
        most = self.bounds.per_address
        if most is not None and not self.bounds.exempt(connection.address):
            key = address_key(connection.address)
            open_now = self._by_address.get(key, 0)
            if open_now >= most:
                self._over_address += 1
                return False
            self._by_address[key] = open_now + 1
        self.connections.add(connection)
        self.ticker.add(connection)
        return True

    def ending(self, connection: InboundConnection) -> None:
        """Nothing is answered on the connection any more."""
        if connection in self.connections:
            self._ending.add(connection)
        self._changed()

    def closed(self, connection: InboundConnection) -> None:
        """The connection is gone."""
        if connection not in self.connections:
            return
        self.connections.discard(connection)
        self._ending.discard(connection)
        self.ticker.discard(connection)
        if self.bounds.per_address is not None and not self.bounds.exempt(connection.address):
            key = address_key(connection.address)
            left = self._by_address.get(key, 1) - 1
            if left:
                self._by_address[key] = left
            else:
                self._by_address.pop(key, None)
        self._changed()

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine that answers a request; its last act is to call `over` with this task."""
        # A request that waited begins inside the task of the one before it, whose context it must not inherit.
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, context=self.context.copy())
        self._tasks.add(task)
        return task

    def over(self, task: asyncio.Task[None] | None) -> None:
        """This task, from within, has answered. Not a callback of it: that costs a turn of the event loop."""
        self._tasks.discard(task)
        if self.draining:
            self._finished.set()

    def give_up(self, task: asyncio.Task[None]) -> None:
        """Cancel a task that answers a request."""
        task.add_done_callback(self.over)  # cancelled before its first step, it never comes to call `over`
        task.cancel()

    def _changed(self) -> None:
        if self.draining:
            self._finished.set()


__all__ = ["BACKLOG", "LAST_SECONDS", "MAX_CONNECTIONS", "Bounds", "Listener", "ListenerStatistics"]
