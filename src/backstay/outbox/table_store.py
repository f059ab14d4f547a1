"""The relay's store on an outbox table of another product, and an operator's actions there.

Leases and parked keys are in our own tables beside it. Rows of a parked key stay where they are and are read around:
a table with columns that we know nothing of can't be emptied and filled again.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from uuid import UUID

from backstay.db import Database, Executor
from backstay.outbox.store import _PIN_PLANS, BACKLOG_LIMIT, Backlog, Session, _pairs, _PostgresSession
from backstay.outbox.table import OutboxTable, templates


class TableStore:
    """A `Store` on a table of another product."""

    def __init__(self, db: Database, table: OutboxTable) -> None:
        self._db = db
        self.table = table

    async def check(self) -> None:
        """ConfigError names what the table lacks, and the statements that add it."""
        await self.statements()

    async def statements(self) -> SimpleNamespace:
        """Return the SQL for the table as it is now."""
        found = {row["name"]: row["type"] for row in await self._db.fetch(templates.columns, self.table.table)}
        self.table.check(found)
        return self.table.statements(found)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Session]:
        """A session on two connections of its own."""
        statements = await self.statements()
        async with self._db.session() as leases, self._db.session() as work:
            await work.execute(_PIN_PLANS)
            yield _TableSession(leases, work, statements)


class _TableSession(_PostgresSession):
    def __init__(self, leases: Executor, work: Executor, statements: SimpleNamespace) -> None:
        super().__init__(leases, work)
        self._sql = statements

    def _read_statement(self, *, around: bool) -> str:
        return str(self._sql.read_around if around else self._sql.read)

    async def delete(
        self, relay: UUID, rows: Mapping[int, Collection[int]], epochs: Mapping[int, int]
    ) -> frozenset[int]:
        shards, seqs = _pairs(rows)
        async with self._turn:
            held = await self._work.fetch(self._sql.delete, shards, seqs, list(epochs), list(epochs.values()), relay)
        return frozenset(row["shard"] for row in held)

    async def park(
        self, relay: UUID, shard: int, epoch: int, key: tuple[str, bytes | None], reason: str, known: Sequence[int]
    ) -> bool:
        del known  # rows that are on their way stay too
        text = (key[1] or b"").decode()
        async with self._turn:
            return bool(await self._work.fetchval(self._sql.park, relay, shard, epoch, key[0], text, reason))

    async def gather(self, relay: UUID, epochs: Mapping[int, int], known: Sequence[int]) -> None:
        """Nothing: rows of parked keys stay."""

    async def settle(self, relay: UUID, group: int, epochs: Mapping[int, int], marks: Collection[str]) -> int | None:
        shards, numbers = list(epochs), list(epochs.values())
        async with self._turn:
            row = await self._work.fetchrow(self._sql.settle, relay, group, shards, numbers, list(marks))
        return row["deleted"] if row is not None and row["held"] else None

    async def backlog(self, shards: Sequence[int]) -> Backlog:
        async with self._turn:
            row = await self._work.fetchrow(self._sql.backlog, shards, BACKLOG_LIMIT + 1)
        return Backlog(0, 0.0) if row is None else Backlog(row["pending"], max(0.0, row["oldest"] or 0.0))
