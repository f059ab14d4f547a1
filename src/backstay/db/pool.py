"""A lean pool: last in, first out, and no RESET between users.

The price of leaving out the reset is a rule: nobody changes session state (SET without LOCAL, LISTEN, temporary
tables, session advisory locks) on a pooled connection. Who needs that takes a connection of their own.
A connection comes back only when it is known to be idle; whatever else is rolled back first, or closed.

Nobody waits for a connection beyond the deadline of the request that it is for. Who waits goes in order, but for work
that ends what was begun (`ahead`): under too much load it is finished, and the new waits.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import asyncpg

from backstay.db.driver import DRIVER_ERRORS, Connection
from backstay.db.errors import Unavailable, translate
from backstay.metrics import Count
from backstay.resilience import remaining

RECOVERY_TIMEOUT = 2.0  # seconds a connection gets for rolling back before it is closed
CLOSE_TIMEOUT = 5.0  # seconds connections in use get when the pool closes
IDLE_TIMEOUT = 60.0  # seconds after which a connection that nobody needed is closed

_ahead: ContextVar[bool] = ContextVar("backstay_db_ahead", default=False)


@contextmanager
def ahead() -> Iterator[None]:
    """Give connections requested inside priority: their work releases resources that other callers wait for."""
    token = _ahead.set(True)
    try:
        yield
    finally:
        _ahead.reset(token)


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Connections open and idle, callers waiting, and counts since the start."""

    size: int
    idle: int
    waiting: int
    opened: Count
    dropped: Count
    timeouts: Count


class Pool:
    """Connections made by `connect`, at most `max_size` of them; once open, those of a burst are closed after it."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], *, max_size: int, acquire_timeout: float) -> None:
        self._connect = connect
        self._min_size = 0
        self._max_size = max_size
        self._acquire_timeout = acquire_timeout
        self._idle: list[Connection] = []
        self._used: set[Connection] = set()
        self._first: deque[asyncio.Future[Connection | None]] = deque()  # before all `_waiters`
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._unused = 0  # how many of the first in `_idle` nobody has taken since `shrink`
        self._shrinking: asyncio.TimerHandle | None = None
        self._size = 0
        self._opened = self._dropped = self._timeouts = 0
        self._closed = False

    async def open(self, min_size: int) -> None:
        """Open the first `min_size` connections; Unavailable when the database isn't there."""
        self._closed = False
        self._min_size = min_size
        while self._size < min_size:
            self.release(await self._open())
        self._shrink_later()

    async def acquire(self) -> Connection:
        """Return a connection for exclusive use; Unavailable when none is free in time, or before the deadline."""
        if (connection := self._take()) is not None:
            return connection
        left = remaining()
        limit = self._acquire_timeout if left is None else min(self._acquire_timeout, max(0.0, left))
        try:
            async with asyncio.timeout(limit):
                return await self._wait()
        except TimeoutError:
            self._timeouts += 1
            raise Unavailable(f"no database connection within {limit:.3g} s: all {self._max_size} are in use") from None

    def release(self, connection: Connection) -> None:
        """Give back a connection; a broken one, or one left in a transaction, is dropped."""
        if self._closed or connection.is_closed() or connection.is_in_transaction():
            self.drop(connection)
        elif not self._hand_on(connection):
            self._used.discard(connection)
            self._idle.append(connection)

    def drop(self, connection: Connection) -> None:
        """Close a connection at once, and let the next who waits open another."""
        connection.terminate()
        self._used.discard(connection)
        self._size -= 1
        self._dropped += 1
        self._hand_on(None)

    def recover(self, connection: Connection) -> None:
        """Give back a connection whose user was cancelled: rolled back in the background, or dropped."""
        self._aside(self._recover(connection), "db-recover")

    async def close(self) -> None:
        """Close what is idle, wait up to `CLOSE_TIMEOUT` for what is in use, then close that too."""
        self._closed = True
        if self._shrinking is not None:
            self._shrinking.cancel()
        while self._first or self._waiters:
            self._hand_on(None)
        deadline = asyncio.get_running_loop().time() + CLOSE_TIMEOUT
        for connection in self._idle:
            await close_politely(connection)
        self._size -= len(self._idle)
        self._idle.clear()
        while self._used and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for connection in list(self._used):
            self.drop(connection)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def shrink(self) -> None:
        """Close the connections that were unused since the last call, but for `min_size`."""
        spare = max(0, min(self._unused, self._size - self._min_size))
        for connection in self._idle[:spare]:
            self._aside(close_politely(connection), "db-shrink")
        del self._idle[:spare]
        self._size -= spare
        self._unused = len(self._idle)

    def statistics(self) -> PoolStatistics:
        """Return the state of the pool."""
        waiting = sum(not waiter.done() for waiter in (*self._first, *self._waiters))
        return PoolStatistics(self._size, len(self._idle), waiting, self._opened, self._dropped, self._timeouts)

    def _shrink_later(self) -> None:
        def shrink() -> None:
            self.shrink()
            self._shrink_later()

        self._shrinking = asyncio.get_running_loop().call_later(IDLE_TIMEOUT, shrink)

    def _aside(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            self._unused = min(self._unused, len(self._idle))
            if not connection.is_closed():
                self._used.add(connection)
                return connection
            self._size -= 1
            self._dropped += 1
        return None

    async def _wait(self) -> Connection:
        while True:
            if self._closed:
                raise Unavailable("the database pool is closed")
            if (connection := self._take()) is not None:
                return connection
            if self._size < self._max_size:
                return await self._open()
            if (connection := await self._queue()) is not None:
                return connection

    async def _queue(self) -> Connection | None:
        """Wait for a connection, or for the right to open one (None)."""
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        (self._first if _ahead.get() else self._waiters).append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            # It may have been given something in the very moment in which it was cancelled.
            if waiter.done() and not waiter.cancelled():
                given = waiter.result()
                self._hand_on(None) if given is None else self.release(given)
            raise

    def _hand_on(self, connection: Connection | None) -> bool:
        while self._first or self._waiters:
            waiter = (self._first or self._waiters).popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    async def _open(self) -> Connection:
        self._size += 1
        try:
            connection = await self._connect()
        except BaseException as error:
            self._size -= 1
            self._hand_on(None)
            if isinstance(error, TimeoutError):
                raise Unavailable("the database did not accept a connection in time") from error
            if isinstance(error, DRIVER_ERRORS):
                raise translate(error) from error
            raise
        self._opened += 1
        self._used.add(connection)
        return connection

    async def _recover(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(RECOVERY_TIMEOUT):
                await _come_to_rest(connection)
        except asyncio.CancelledError:
            connection.terminate()
            raise
        except DRIVER_ERRORS:
            connection.terminate()
        finally:
            self.release(connection)


async def _come_to_rest(connection: Connection) -> None:
    """Wait until the cancelled statement has ended, and roll back; the cancellation may hit this instead, once."""
    statement = "ROLLBACK" if connection.is_in_transaction() else "SELECT 1"
    try:
        await connection.execute(statement)
    except asyncpg.QueryCanceledError:
        await connection.execute(statement)


async def close_politely(connection: Connection) -> None:
    """Close the connection in order, or abort it when the server doesn't answer."""
    try:
        await connection.close(timeout=CLOSE_TIMEOUT)
    except DRIVER_ERRORS:
        connection.terminate()
