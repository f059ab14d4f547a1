"""Statements, and the transactions they run in.

A transaction ends in one of three ways: committed; rolled back, because its block raised; or unknown, because the
connection was lost between COMMIT and its answer (`OutcomeUnknown`). A block that swallowed a failed statement
doesn't pass for committed: PostgreSQL rolls back then, and `Aborted` says so.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import asyncpg

from backstay.db.driver import DRIVER_ERRORS, Connection, Row
from backstay.db.errors import Aborted, DatabaseError, OutcomeUnknown, Unavailable, translate

log = logging.getLogger("backstay.db")


class Executor:
    """Runs statements on one connection; every driver error comes out as a `DatabaseError`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def raw(self) -> Connection:
        """The driver's connection, for what isn't offered here (COPY, cursors); its errors are the driver's."""
        return self._connection

    async def fetch(self, sql: str, *args: object, timeout: float | None = None) -> list[Row]:
        """All rows."""
        try:
            return await self._connection.fetch(sql, *args, timeout=timeout)
        except DRIVER_ERRORS as error:
            self._failed(error)

    async def fetchrow(self, sql: str, *args: object, timeout: float | None = None) -> Row | None:
        """Return the first row, or None."""
        try:
            return await self._connection.fetchrow(sql, *args, timeout=timeout)
        except DRIVER_ERRORS as error:
            self._failed(error)

    async def fetchval(self, sql: str, *args: object, timeout: float | None = None) -> Any:
        """Return the first column of the first row, or None."""
        try:
            return await self._connection.fetchval(sql, *args, timeout=timeout)
        except DRIVER_ERRORS as error:
            self._failed(error)

    async def execute(self, sql: str, *args: object, timeout: float | None = None) -> str:
        """Run it, and return PostgreSQL's status, such as `UPDATE 1`."""
        try:
            return await self._connection.execute(sql, *args, timeout=timeout)
        except DRIVER_ERRORS as error:
            self._failed(error)

    async def executemany(self, sql: str, rows: Iterable[Sequence[object]], *, timeout: float | None = None) -> None:
        """Run it once for each row of arguments."""
        try:
            await self._connection.executemany(sql, rows, timeout=timeout)
        except DRIVER_ERRORS as error:
            self._failed(error)

    def _failed(self, error: BaseException) -> NoReturn:
        if isinstance(error, TimeoutError | asyncpg.InternalClientError):
            # The driver gave up waiting, or lost its place in the protocol, as it does when the server says goodbye to
            # an idle connection: what comes next on this connection nobody knows.
            self._connection.terminate()
        raise translate(error) from error


class _Ended:
    """Stands in for the connection of a transaction that is over."""

    def __getattr__(self, name: str) -> NoReturn:
        raise DatabaseError("this transaction has ended: do its work inside the `async with` block")


class Transaction(Executor):
    """One open transaction. Made by `Database.transaction()`."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._after_commit: list[Callable[[], None]] = []
        self._savepoints = 0

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once this transaction has been committed; not after a rollback or an unknown outcome."""
        self._after_commit.append(callback)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """A part that can fail alone: when the block raises, its statements and callbacks are undone."""
        self._savepoints += 1
        name, callbacks = f"backstay_{self._savepoints}", len(self._after_commit)
        await self.execute(f"SAVEPOINT {name}")
        try:
            yield
        except Exception:
            del self._after_commit[callbacks:]
            await self.execute(f"ROLLBACK TO SAVEPOINT {name}")
            raise
        await self.execute(f"RELEASE SAVEPOINT {name}")

    async def begin(self, mode: str) -> None:
        """Open it (the database does this)."""
        await self.execute(f"BEGIN {mode}" if mode else "BEGIN")

    async def commit(self) -> None:
        """Commit it (the database does this)."""
        try:
            status = await self._connection.execute("COMMIT")
        except DRIVER_ERRORS as error:
            self._commit_failed(error)
        if status != "COMMIT":
            raise Aborted

    def committed(self) -> None:
        """Close it for further use and call the callbacks (the database does this)."""
        self.end()
        for callback in self._after_commit:
            try:
                callback()
            except Exception:
                log.exception("db.after-commit-failed")

    def end(self) -> None:
        """Close it for further use (the database does this)."""
        self._connection = _Ended()  # type: ignore[assignment]

    def _commit_failed(self, error: BaseException) -> NoReturn:
        mapped = translate(error)
        if isinstance(error, TimeoutError) or isinstance(mapped, Unavailable):
            self._connection.terminate()
            raise OutcomeUnknown from error
        raise mapped from error


class Statement(Transaction):
    """The transaction around one statement, which PostgreSQL itself makes. Made by `Database.statement()`."""

    def __init__(self, connection: Connection) -> None:
        self._given = False
        super().__init__(connection)

    @property
    def _connection(self) -> Connection:
        if self._given:
            raise DatabaseError("Database.statement() is for one statement: use Database.transaction() for more")
        self._given = True
        return self._live

    @_connection.setter
    def _connection(self, connection: Connection) -> None:
        self._live = connection

    def end(self) -> None:
        """Close it for further use (the database does this)."""
        self._given = False
        super().end()

    def _failed(self, error: BaseException) -> NoReturn:
        if isinstance(error, TimeoutError | asyncpg.InternalClientError):
            self._live.terminate()
        mapped = translate(error)
        if isinstance(mapped, Unavailable):
            raise OutcomeUnknown from error
        raise mapped from error


async def roll_back(connection: Connection, timeout: float) -> None:
    """Roll back what is open on `connection`; close it when that isn't possible in time."""
    if connection.is_closed():
        return
    try:
        async with asyncio.timeout(timeout):
            await connection.execute("ROLLBACK")
    except DRIVER_ERRORS:
        connection.terminate()
