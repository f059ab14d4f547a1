"""A service's database: its pool, its migrations, its transactions."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import asyncpg

from backstay.db import migrations as migrating
from backstay.db.driver import DRIVER_ERRORS, Connection, Row
from backstay.db.errors import DatabaseError, Unavailable, translate
from backstay.db.migrations import Component
from backstay.db.pool import RECOVERY_TIMEOUT, Pool, PoolStatistics, close_politely
from backstay.db.tls import secured
from backstay.db.transaction import Executor, Statement, Transaction, roll_back
from backstay.errors import ConfigError
from backstay.metrics import Count
from backstay.tasks import Backoff

log = logging.getLogger("backstay.db")

CONNECT_TIMEOUT = 5.0  # seconds for one connection attempt
STARTUP_TIMEOUT = 30.0  # seconds to wait for a database that isn't there yet
START_RETRY = Backoff(first=0.1, cap=1.0)  # waits between attempts meanwhile
IDLE_IN_TRANSACTION_TIMEOUT = 60.0  # seconds after which PostgreSQL ends a forgotten transaction
_DRIVER_GRACE = 2.0  # seconds the driver waits longer than the server does


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """The pool's state, and how transactions ended since the start."""

    pool: PoolStatistics
    committed: Count
    rolled_back: Count


class Database:
    """PostgreSQL behind a lean pool. Entering it opens the pool and runs the migrations.

    `dsn` is a `postgresql://` URL and may be given later by `use_dsn`. `migrations` is a folder; a relative one lies
    beside the module that makes the Database. Time-outs are seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        dsn: str | None = None,
        migrations: Path | str | None = None,
        min_size: int = 1,
        max_size: int = 6,
        acquire_timeout: float = 5.0,
        statement_timeout: float = 10.0,
        startup_timeout: float = STARTUP_TIMEOUT,
    ) -> None:
        self.name = name
        self._dsn = dsn
        self._min_size = min_size
        self._max_size = max_size
        self._statement_timeout = statement_timeout
        self._startup_timeout = startup_timeout
        self._required: dict[str, Component] = {}
        self._own = None if migrations is None else Component(name, _beside_caller(Path(migrations)))
        self._pool = Pool(self._connect, max_size=max_size, acquire_timeout=acquire_timeout)
        self._open = False
        self._committed = self._rolled_back = 0

    def use_dsn(self, dsn: str) -> None:
        """Set the address; only before entering."""
        if self._open:
            raise ConfigError(f"database {self.name!r} is open: its address can't change any more")
        self._dsn = dsn

    @property
    def lacks_dsn(self) -> bool:
        """True if no address has been given yet."""
        return self._dsn is None

    @property
    def dsn(self) -> str:
        """The address, password and all, for who needs a connection of another kind."""
        if self._dsn is None:
            raise ConfigError(f"database {self.name!r} has no address: set DATABASE_URL or pass dsn=")
        return self._dsn

    def requires(self, component: Component) -> None:
        """Have the tables of `component` made too, before the database's own."""
        known = self._required.setdefault(component.name, component)
        if known != component:
            raise ConfigError(f"component {component.name!r} is registered twice: {known.path} and {component.path}")

    async def __aenter__(self) -> Self:
        secured(self.dsn)
        try:
            await self._when_there(self._migrate)
            await self._when_there(lambda: self._pool.open(self._min_size))
        except BaseException:
            await self._pool.close()
            raise
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self, mode: str = "") -> AsyncIterator[Transaction]:
        """A transaction, committed when the block ends and rolled back when it raises.

        `mode` is what may follow BEGIN, such as `ISOLATION LEVEL REPEATABLE READ READ ONLY`.
        """
        connection, tx = await self._begin(mode)
        try:
            yield tx
            await tx.commit()
        except asyncio.CancelledError:
            self._rolled_back += 1
            tx.end()
            self._pool.recover(connection)
            raise
        except BaseException:
            self._rolled_back += 1
            tx.end()
            await self._end_failed(connection)
            raise
        self._committed += 1
        self._pool.release(connection)
        tx.committed()

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[Transaction]:
        """A transaction of one statement that commits itself: one round trip instead of three.

        For hot paths that say all they have to say in one statement. A second one is refused. `OutcomeUnknown` means
        that the connection was lost on the way: it may have happened.
        """
        connection = await self._pool.acquire()
        tx = Statement(connection)
        try:
            yield tx
        except BaseException as error:
            self._rolled_back += 1
            tx.end()
            if isinstance(error, Exception):
                self._pool.release(connection)
            else:
                self._pool.recover(connection)
            raise
        self._committed += 1
        self._pool.release(connection)
        tx.committed()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Executor]:
        """A connection of its own, outside the pool, for who needs session state or must not wait for others."""
        try:
            connection = await self._connect()
        except DRIVER_ERRORS as error:
            raise Unavailable(f"the database can't be reached: {error}") from error
        try:
            yield Executor(connection)
        finally:
            await close_politely(connection)

    async def fetch(self, sql: str, *args: object, timeout: float | None = None) -> list[Row]:
        """All rows of one statement, in a transaction of its own."""
        async with self._borrowed() as one:
            return await one.fetch(sql, *args, timeout=timeout)

    async def fetchrow(self, sql: str, *args: object, timeout: float | None = None) -> Row | None:
        """Return the first row of one statement, or None."""
        async with self._borrowed() as one:
            return await one.fetchrow(sql, *args, timeout=timeout)

    async def fetchval(self, sql: str, *args: object, timeout: float | None = None) -> Any:
        """Return the first column of the first row of one statement, or None."""
        async with self._borrowed() as one:
            return await one.fetchval(sql, *args, timeout=timeout)

    async def execute(self, sql: str, *args: object, timeout: float | None = None) -> str:
        """Run one statement; returns PostgreSQL's status, such as `UPDATE 1`."""
        async with self._borrowed() as one:
            return await one.execute(sql, *args, timeout=timeout)

    async def ping(self, timeout: float = 1.0) -> None:
        """Run a trivial statement; raises Unavailable when it takes longer than `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self.fetchval("SELECT 1")
        except (TimeoutError, DatabaseError) as error:
            raise Unavailable(f"database {self.name!r} gives no answer: {error or 'time-out'}") from error

    def statistics(self) -> DatabaseStatistics:
        """Return the state of the database's client side."""
        return DatabaseStatistics(self._pool.statistics(), self._committed, self._rolled_back)

    def __repr__(self) -> str:
        return f"Database({self.name!r}, {_masked(self._dsn)}, max_size={self._max_size})"

    async def _begin(self, mode: str) -> tuple[Connection, Transaction]:
        """Begin on a live connection: the server may have left those that lay idle, which only using them shows."""
        lost: Unavailable | None = None
        for _ in range(self._max_size + 1):
            connection = await self._pool.acquire()
            tx = Transaction(connection)
            try:
                await tx.begin(mode)
            except Unavailable as error:
                lost = error
                self._pool.drop(connection)
            except asyncio.CancelledError:
                self._pool.recover(connection)
                raise
            except DatabaseError:
                self._pool.release(connection)
                raise
            else:
                return connection, tx
        raise lost or Unavailable

    def _borrowed(self) -> "_Borrowed":
        return _Borrowed(self._pool)

    async def _end_failed(self, connection: Connection) -> None:
        try:
            await roll_back(connection, RECOVERY_TIMEOUT)
        except asyncio.CancelledError:
            self._pool.recover(connection)
            raise
        self._pool.release(connection)

    async def _migrate(self) -> None:
        components = [*self._required.values(), *([self._own] if self._own else [])]
        if not components:
            return
        connection = await self._connect()
        try:
            await migrating.migrate(connection, components)
        finally:
            await close_politely(connection)

    async def _when_there(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step of starting, again and again while the database isn't there."""
        loop = asyncio.get_running_loop()
        deadline, failures = loop.time() + self._startup_timeout, 0
        while True:
            try:
                await step()
                return
            except DatabaseError as error:
                problem = error
            except DRIVER_ERRORS as error:
                problem = translate(error)
                problem.__cause__ = error
            failures += 1
            pause = START_RETRY.wait(failures)
            if not problem.transient or loop.time() + pause > deadline:
                raise problem
            if failures == 1:
                seconds = f"{self._startup_timeout:g}"
                log.warning("db.unreachable-at-start", extra={"reason": f"{problem}; trying for {seconds} s"})
            await asyncio.sleep(pause)

    async def _connect(self) -> Connection:
        milliseconds = str(int(self._statement_timeout * 1000))
        connection: Connection = await asyncpg.connect(
            self._dsn,
            timeout=CONNECT_TIMEOUT,
            command_timeout=self._statement_timeout + _DRIVER_GRACE,
            max_cached_statement_lifetime=0,
            server_settings={
                "application_name": self.name,
                "statement_timeout": milliseconds,
                "idle_in_transaction_session_timeout": str(int(IDLE_IN_TRANSACTION_TIMEOUT * 1000)),
                "jit": "off",  # short statements only: compiling costs more than it saves
            },
        )
        return connection


class _Borrowed:
    """A pooled connection for one statement."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Executor:
        self._connection = await self._pool.acquire()
        return Executor(self._connection)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            self._pool.recover(self._connection)
        else:
            self._pool.release(self._connection)


def _beside_caller(path: Path) -> Path:
    """A relative path lies beside the module that called the function that called this."""
    if path.is_absolute():
        return path
    file = sys._getframe(2).f_globals.get("__file__")
    return Path(file).parent / path if file else path


def _masked(dsn: str | None) -> str:
    if dsn is None:
        return "no address"
    parts = urlsplit(dsn)
    return f"{parts.hostname}:{parts.port or 5432}{parts.path}"
