"""Status of an outbox: rows that wait, the age of the oldest, and the relays that publish them."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from backstay.db import Database
from backstay.outbox.errors import OutboxError
from backstay.outbox.parking import ParkedKey, list_parked
from backstay.outbox.store import BACKLOG_LIMIT, SHARDS, sql
from backstay.outbox.table import OutboxTable
from backstay.outbox.table_store import TableStore


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """A relay that is there, and how many shards it has."""

    id: UUID
    name: str
    shards: int


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """A database's outbox as it is now."""

    pending: int
    """Rows, counted up to 10,000."""
    truncated: bool
    """Whether there are more."""
    oldest_age: float
    """Seconds."""
    shards: int
    unowned: int
    """Shards that no relay works on."""
    relays: tuple[RelayStatus, ...]
    topics: dict[str, int]
    """Rows by topic, among those counted."""
    parked: tuple[ParkedKey, ...]
    """Keys that aren't published; the first thousand."""


async def read_status(db: Database, *, table: OutboxTable | None = None) -> OutboxStatus:
    """Read the status of our own table or another one; OutboxError when the database has no outbox."""
    if await db.fetchval("SELECT to_regclass('outbox_shards')") is None:
        raise OutboxError(f"database {db.name!r} has no outbox: its tables are made when a service or relay starts")
    own: Any = sql if table is None else await TableStore(db, table).statements()
    backlog = await db.fetchrow(own.backlog, list(range(SHARDS)), BACKLOG_LIMIT + 1)
    states = await db.fetch(sql.shards)
    relays = tuple(RelayStatus(row["relay"], row["name"], row["shards"]) for row in await db.fetch(sql.relays))
    topics = {row["topic"]: row["rows"] for row in await db.fetch(own.topics, BACKLOG_LIMIT)}
    pending = backlog["pending"] if backlog else 0
    return OutboxStatus(
        pending=min(pending, BACKLOG_LIMIT),
        truncated=pending > BACKLOG_LIMIT,
        oldest_age=max(0.0, (backlog["oldest"] if backlog else None) or 0.0),
        shards=len(states),
        unowned=sum(not state["live"] for state in states),
        relays=relays,
        topics=topics,
        parked=tuple(await list_parked(db, table=table)),
    )
