"""An outbox whose events are read from the write-ahead log."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from re import sub

from backstay.db import Database, DatabaseError
from backstay.errors import ConfigError
from backstay.outbox.store import PostgresStore, Session, Store
from backstay.outbox.wal.backing import PostgresBacking, sql
from backstay.outbox.wal.feed import Feed
from backstay.outbox.wal.options import WalOptions
from backstay.outbox.wal.replication import Stream, connect
from backstay.outbox.wal.session import WalSession

SENDER_TIMEOUT = 10.0  # seconds without a sign of a leader after which the server gives the slot to a standby
MIN_VERSION = 140000
MIN_IDLE = 0.0005  # seconds between two reads: they cost the database nothing


class WalStore:
    """The `Store`; `table` is the polling one, by which it falls back."""

    def __init__(self, db: Database, options: WalOptions | None = None, *, table: Store | None = None) -> None:
        options = options or WalOptions()
        slot = options.slot or sub(r"[^a-z0-9_]", "_", f"backstay_{db.name.lower()}")[:63]
        self.options = replace(options, slot=slot)
        self._db = db
        self._table = table or PostgresStore(db)
        self._wake: Callable[[], None] = lambda: None

    def use_wake(self, wake: Callable[[], None]) -> None:
        """Set the function to call when changes have arrived."""
        self._wake = wake

    async def check(self) -> None:
        """Return whether the server lets us; ConfigError names each setting and right that is missing."""
        facts = await self._db.fetchrow(sql.facts, self.options.publication)
        assert facts is not None
        problems = []
        if facts["version"] < MIN_VERSION:
            problems.append(f"server_version_num={facts['version']}: the WAL relay needs PostgreSQL 14 or newer")
        if facts["wal_level"] != "logical":
            problems.append(
                f"wal_level={facts['wal_level']!r}: the WAL relay needs 'logical' (set it, and restart PostgreSQL)"
            )
        if not facts["published"] and not facts["may_publish"]:
            problems.append(
                f"publication {self.options.publication!r} is missing and role {facts['role']!r} may not make it: "
                f"run CREATE PUBLICATION {self.options.publication} FOR TABLE outbox WITH (publish = 'insert') "
                f"as {facts['owner']!r}"
            )
        problems += await self._replicates(facts["role"]) if facts["wal_level"] == "logical" else []
        if problems:
            raise ConfigError(problems)
        await self._publish(published=facts["published"], version=facts["version"])

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Session]:
        """A session that follows the slot whenever it can be had."""
        async with self._table.open() as table, self._db.session() as extra:
            await extra.execute(_PIN_PLANS)
            backing = PostgresBacking(self._db, extra, self.options.slot)
            session = WalSession(table, backing, self._attach, options=self.options, wake=self._wake)
            following = asyncio.create_task(session.run(), name="outbox-slot")
            try:
                yield session
            finally:
                following.cancel()
                await asyncio.wait({following})

    @asynccontextmanager
    async def _attach(self, feed: Feed) -> AsyncIterator[Stream]:
        async with connect(self._db.dsn, timeout=SENDER_TIMEOUT) as connection:
            stream = Stream(connection, feed)
            try:
                await stream.start(self.options.slot, self.options.publication)
                yield stream
            finally:
                stream.close()

    async def _replicates(self, role: str) -> list[str]:
        """Return whether the server accepts a replication connection, by trying: services have their own rules."""
        try:
            async with connect(self._db.dsn, timeout=SENDER_TIMEOUT):
                return []
        except DatabaseError as error:
            return [
                f"role {role!r} can't replicate: {error}; run ALTER ROLE {role} REPLICATION (on managed servers: grant "
                "the provider's replication role) and see max_wal_senders, max_replication_slots and pg_hba.conf"
            ]

    async def _publish(self, *, published: bool, version: int) -> None:
        name = self.options.publication
        if not published:
            generated = ", publish_generated_columns = stored" if version >= 180000 else ""
            await self._db.execute(f"CREATE PUBLICATION {name} FOR TABLE outbox WITH (publish = 'insert'{generated})")
        elif not await self._db.fetchval(sql.publishes, name):
            raise ConfigError(
                f"publication {name!r} doesn't publish the outbox's inserts: "
                f"run ALTER PUBLICATION {name} ADD TABLE outbox, with publish = 'insert'"
            )


_PIN_PLANS = """
SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; SET enable_hashjoin = off;
SET plan_cache_mode = force_generic_plan"""


async def empty_at_once(db: Database, options: WalOptions | None = None) -> None:
    """Let events leave the table in the transaction that wrote them; from now on only a WAL relay publishes them.

    Makes the publication and the slot first, so that no event is missed. Run by the owner of the table; it waits for
    the transactions that write to it. The way back: stop the writers, let the relay publish the rest, drop the trigger.
    """
    store = WalStore(db, options)
    await store.check()
    async with db.session() as session:
        if await session.fetchrow(sql.slot, store.options.slot) is None:
            await session.execute(sql.create_slot, store.options.slot)
        await session.execute((Path(__file__).parent / "empty.sql").read_text(encoding="utf-8"))
