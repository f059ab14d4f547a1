"""The WAL relay's database operations besides those of every relay."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from pathlib import Path
from typing import Protocol
from uuid import UUID

from backstay.db import Database, Executor, Queries
from backstay.outbox.store import Row
from backstay.outbox.store import sql as outbox_sql
from backstay.outbox.wal.snapshot import Snapshot

sql = Queries.load(Path(__file__).parent / "queries.sql")
CREATE_TIMEOUT = 9.0  # seconds to wait for transactions that write just now, before the slot is asked for again


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot as the server has it; `retained`: bytes of WAL kept for it."""

    database: str | None
    plugin: str | None
    active: bool
    status: str
    retained: int

    @property
    def lost(self) -> bool:
        """True if the server has thrown away what the slot needs."""
        return self.status == "lost"


class Backing(Protocol):
    """The table and the slot, for one life of a relay."""

    async def empties(self) -> bool:
        """Return whether rows leave the table in the transaction that wrote them."""
        ...

    async def slot(self) -> Slot | None:
        """Return the slot, if it is there."""
        ...

    async def create_slot(self) -> None:
        """Make it; may take as long as the transactions that write just now."""
        ...

    async def drop_slot(self) -> None:
        """Drop the slot, unless it is in use."""
        ...

    async def settled(self, shards: Sequence[int], known: Sequence[int]) -> tuple[Snapshot, list[int]]:
        """Return the shards whose table has only `known` rows to publish, and the snapshot that showed it."""
        ...

    async def parked(self) -> tuple[Snapshot, list[int]]:
        """Shards with parked keys."""
        ...

    async def delete(
        self, relay: UUID, rows: Mapping[int, Collection[int]], epochs: Mapping[int, int]
    ) -> tuple[frozenset[int], int]:
        """As a session's `delete`, with the number of rows that were there."""
        ...

    async def spill(self, rows: Sequence[tuple[Row, datetime | None]]) -> None:
        """Write rows to the table, where they stay, with the time when they are due."""
        ...

    async def refuse(self, reason: str | None) -> bool:
        """Let new events be refused, or taken again; whether that is a change."""
        ...


class PostgresBacking:
    """The `Backing` on a connection of its own."""

    def __init__(self, db: Database, session: Executor, slot: str) -> None:
        self._db = db
        self._session = session
        self._slot = slot
        self._turn = asyncio.Lock()

    async def empties(self) -> bool:
        async with self._turn:
            return bool(await self._session.fetchval(sql.empties))

    async def slot(self) -> Slot | None:
        async with self._turn:
            row = await self._session.fetchrow(sql.slot, self._slot)
        return None if row is None else Slot(**dict(row))

    async def create_slot(self) -> None:
        async with self._db.session() as other:  # others' deletions must not wait for it
            await other.execute(sql.create_slot, self._slot, timeout=CREATE_TIMEOUT)

    async def drop_slot(self) -> None:
        async with self._turn:
            await self._session.execute(sql.drop_slot, self._slot)

    async def settled(self, shards: Sequence[int], known: Sequence[int]) -> tuple[Snapshot, list[int]]:
        async with self._turn:
            row = await self._session.fetchrow(sql.settled, shards, known)
        assert row is not None
        return Snapshot.parse(row["snapshot"]), row["shards"]

    async def parked(self) -> tuple[Snapshot, list[int]]:
        async with self._turn:
            row = await self._session.fetchrow(sql.parked)
        assert row is not None
        return Snapshot.parse(row["snapshot"]), row["shards"]

    async def delete(
        self, relay: UUID, rows: Mapping[int, Collection[int]], epochs: Mapping[int, int]
    ) -> tuple[frozenset[int], int]:
        shards: list[int] = []
        seqs: list[int] = []
        for shard, some in rows.items():
            seqs.extend(some)
            shards.extend(repeat(shard, len(some)))
        async with self._turn:
            row = await self._session.fetchrow(sql.delete, shards, seqs, list(epochs), list(epochs.values()), relay)
        assert row is not None
        return frozenset(row["shards"]), row["rows"]

    async def spill(self, rows: Sequence[tuple[Row, datetime | None]]) -> None:
        columns = list(map(list, zip(*((*row, due) for row, due in rows), strict=True)))
        for n in (2, 4, 6):
            columns[n] = [data.decode() if isinstance(data, bytes) else data for data in columns[n]]
        async with self._turn:
            await self._session.execute("BEGIN")
            try:
                await self._session.execute(outbox_sql.keep)
                await self._session.execute(sql.spill, *columns[1:])
            except BaseException:
                await self._session.execute("ROLLBACK")
                raise
            await self._session.execute("COMMIT")

    async def refuse(self, reason: str | None) -> bool:
        async with self._turn:
            return bool(await self._session.fetchval(sql.refuse, reason is not None, reason))
