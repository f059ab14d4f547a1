"""The store port of the relay, and its PostgreSQL side.

Rows are claimed by shard, never one by one: no UPDATE, no row locks, one dead tuple an event. Reading needs no
position and no transaction horizon: what is there and not in the relay's hands is next, so a late commit with a lower
number is found, and a forgotten transaction elsewhere holds nothing up.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from pathlib import Path
from typing import NamedTuple, Protocol, cast, runtime_checkable
from uuid import UUID

from backstay.db import Component, Database, Executor, Queries
from backstay.outbox.leases import ShardState, View

COMPONENT = Component("outbox", Path(__file__).parent / "migrations")
SHARDS = 64
VERSION_INDEX = "outbox_version"  # what a second event with the same version breaks
BACKLOG_LIMIT = 10_000  # rows that are counted; more than that is "at least"

sql = Queries.load(Path(__file__).parent / "queries.sql")


class Row(NamedTuple):
    """One event as it lies in the table. `headers` is a JSON object, `trace` Java properties; bytes are UTF-8.

    A session may hand out any tuple of these fields: unpack it, don't name them.
    """

    shard: int
    seq: int
    id: str | bytes
    topic: str
    key: str | bytes
    type: str
    payload: str | bytes | None
    headers: str | None
    trace: str | None
    timestamp: datetime


_READ_AROUND = sql.read.replace(
    "-- around",
    "AND NOT EXISTS (SELECT FROM outbox_parked_keys k"
    " WHERE k.aggregatetype = o.aggregatetype AND k.aggregateid = o.aggregateid)",
)


@dataclass(frozen=True, slots=True)
class Backlog:
    """Rows that wait (counted up to `BACKLOG_LIMIT`), and the age of the oldest in seconds.

    With a replication slot: bytes of WAL kept for it, shards that are read from it, and what is wrong with it.
    """

    pending: int
    oldest_age: float
    retained: int = 0
    streamed: int = 0
    problem: str = ""


class Session(Protocol):
    """One relay's way to the table, for one life of it."""

    async def renew(self, relay: UUID, name: str, lease: float) -> None:
        """Be a member, and prolong the leases this relay still has by `lease` seconds from now."""
        ...

    async def view(self) -> View:
        """All shards and the number of relays."""
        ...

    async def acquire(self, relay: UUID, shards: Sequence[int], lease: float) -> dict[int, int]:
        """Take those of the shards that are free or ours; returns shard → new epoch."""
        ...

    async def release(self, relay: UUID, epochs: Mapping[int, int]) -> None:
        """Give shards back."""
        ...

    async def leave(self, relay: UUID) -> None:
        """Be no member any more."""
        ...

    async def read(
        self,
        shards: Sequence[int],
        *,
        limit: int,
        per_shard: int,
        known: Sequence[int],
        topics: Sequence[str],
        keys: Sequence[tuple[str, bytes | None]],
        around: bool,
    ) -> list[Row]:
        """Return the next rows of the shards, in order, without `known` and without waiting topics and keys.

        `around`: leave out parked keys too; not asked for while there are none.
        """
        ...

    async def delete(
        self, relay: UUID, rows: Mapping[int, Collection[int]], epochs: Mapping[int, int]
    ) -> frozenset[int]:
        """Delete acknowledged rows (shard → seqs) of shards that are held under these epochs; returns those shards."""
        ...

    async def park(
        self, relay: UUID, shard: int, epoch: int, key: tuple[str, bytes | None], reason: str, known: Sequence[int]
    ) -> bool:
        """Park topic and key, with all its rows but those `known`; False when the shard isn't held any more."""
        ...

    async def gather(self, relay: UUID, epochs: Mapping[int, int], known: Sequence[int]) -> None:
        """Park what has come since for keys that are parked."""
        ...

    async def backlog(self, shards: Sequence[int]) -> Backlog:
        """Return the number and age of rows that wait in the shards."""
        ...


class Notes(Protocol):
    """Strict mode's part of a session: the record of what each group of shards is about to publish."""

    async def identity(self) -> str:
        """Return the table's own name in the world."""
        ...

    async def note(
        self, relay: UUID, group: int, mark: UUID, rows: Mapping[int, Collection[int]], epochs: Mapping[int, int]
    ) -> bool:
        """Replace the group's note: these rows go out under this mark. False: not all the shards are held any more."""
        ...

    async def settle(self, relay: UUID, group: int, epochs: Mapping[int, int], marks: Collection[str]) -> int | None:
        """Forget the group's note, and delete its rows if its mark is among the committed; returns how many.

        None: not all the shards are held any more.
        """
        ...


@runtime_checkable
class Demanding(Protocol):
    """A store that needs something of the server that may be missing."""

    async def check(self) -> None:
        """ConfigError names what is missing, and what is allowed."""
        ...


class Store(Protocol):
    """An outbox table."""

    def open(self) -> AbstractAsyncContextManager[Session]:
        """Return a fresh session."""
        ...


class PostgresStore:
    """The `Store` on the tables of this package's migrations."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Session]:
        """A session on two connections of its own: renewals never queue behind work, nor work behind a full pool."""
        async with self._db.session() as leases, self._db.session() as work:
            await work.execute(_PIN_PLANS)
            yield _PostgresSession(leases, work)


# The table is empty whenever it is analysed, and its plans must fit a backlog of millions.
_PIN_PLANS = """
SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; SET enable_hashjoin = off;
SET plan_cache_mode = force_generic_plan"""


class _PostgresSession:
    def __init__(self, leases: Executor, work: Executor) -> None:
        self._leases = leases
        self._work = work
        self._turn = asyncio.Lock()

    def _read_statement(self, *, around: bool) -> str:
        return _READ_AROUND if around else sql.read

    async def renew(self, relay: UUID, name: str, lease: float) -> None:
        await self._leases.execute(sql.renew, relay, name, lease)

    async def view(self) -> View:
        rows = await self._leases.fetch(sql.shards)
        states = tuple(ShardState(row["shard"], row["owner"], row["epoch"], row["live"]) for row in rows)
        return View(states, rows[0]["members"], rows[0]["parked"]) if rows else View(states, 0, 0)

    async def acquire(self, relay: UUID, shards: Sequence[int], lease: float) -> dict[int, int]:
        rows = await self._leases.fetch(sql.acquire, relay, shards, lease)
        return {row["shard"]: row["epoch"] for row in rows}

    async def release(self, relay: UUID, epochs: Mapping[int, int]) -> None:
        await self._leases.execute(sql.release, relay, list(epochs), list(epochs.values()))

    async def leave(self, relay: UUID) -> None:
        await self._leases.execute(sql.leave, relay)
        await self._leases.execute(sql.forget)

    async def read(
        self,
        shards: Sequence[int],
        *,
        limit: int,
        per_shard: int,
        known: Sequence[int],
        topics: Sequence[str],
        keys: Sequence[tuple[str, bytes | None]],
        around: bool,
    ) -> list[Row]:
        joined = [f"{topic}\x1f{(key or b'').decode()}" for topic, key in keys]
        async with self._turn:
            rows = await self._work.fetch(
                self._read_statement(around=around), shards, limit, per_shard, known, topics, joined
            )
        return cast("list[Row]", rows)

    async def delete(
        self, relay: UUID, rows: Mapping[int, Collection[int]], epochs: Mapping[int, int]
    ) -> frozenset[int]:
        shards, seqs = _pairs(rows)
        async with self._turn:
            held = await self._work.fetch(sql.delete, shards, seqs, list(epochs), list(epochs.values()), relay)
        return frozenset(row["shard"] for row in held)

    async def park(
        self, relay: UUID, shard: int, epoch: int, key: tuple[str, bytes | None], reason: str, known: Sequence[int]
    ) -> bool:
        topic, text = key[0], (key[1] or b"").decode()
        async with self._turn:
            return bool(await self._work.fetchval(sql.park, relay, shard, epoch, topic, text, reason, known))

    async def gather(self, relay: UUID, epochs: Mapping[int, int], known: Sequence[int]) -> None:
        async with self._turn:
            await self._work.execute(sql.gather, relay, list(epochs), list(epochs.values()), known)

    async def identity(self) -> str:
        async with self._turn:
            return str(await self._work.fetchval(sql.identity))

    async def note(
        self, relay: UUID, group: int, mark: UUID, rows: Mapping[int, Collection[int]], epochs: Mapping[int, int]
    ) -> bool:
        shards, seqs = _pairs(rows)
        async with self._turn:
            return bool(
                await self._work.fetchval(
                    sql.note, relay, group, list(epochs), list(epochs.values()), mark, shards, seqs
                )
            )

    async def settle(self, relay: UUID, group: int, epochs: Mapping[int, int], marks: Collection[str]) -> int | None:
        async with self._turn:
            row = await self._work.fetchrow(sql.settle, relay, group, list(epochs), list(epochs.values()), list(marks))
        return row["deleted"] if row is not None and row["held"] else None

    async def backlog(self, shards: Sequence[int]) -> Backlog:
        async with self._turn:
            row = await self._work.fetchrow(sql.backlog, shards, BACKLOG_LIMIT + 1)
        return Backlog(0, 0.0) if row is None else Backlog(row["pending"], max(0.0, row["oldest"] or 0.0))


def _pairs(rows: Mapping[int, Collection[int]]) -> tuple[list[int], list[int]]:
    """Shard → seqs as two arrays of the same length."""
    shards: list[int] = []
    seqs: list[int] = []
    for shard, some in rows.items():
        seqs.extend(some)
        shards.extend(repeat(shard, len(some)))
    return shards, seqs
