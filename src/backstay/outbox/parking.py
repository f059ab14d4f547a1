"""An operator's actions on parked keys: list, park, resume, skip, edit and replay.

Resuming moves the rows back under their old numbers, in two statements: the second sees what relays put aside until
the first had the key's lock. A skipped event stays in `outbox_parked` with the time of the decision; an edited one
keeps its first payload beside the new one. Nothing is ever dropped.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from backstay.db import Database, Deadlock, Transaction
from backstay.outbox.errors import OutboxError, UnusableEvent
from backstay.outbox.rows import check_payload
from backstay.outbox.store import sql
from backstay.outbox.table import OutboxTable
from backstay.outbox.table_store import TableStore

DEADLOCK_TRIES = 10  # a relay's own statements may wait for the same rows the other way round
DEADLOCK_PAUSE = 0.05  # seconds before the next try

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ParkedKey:
    """A key whose events aren't published. `head` is the first of them, None while the relay gathers them."""

    topic: str
    key: str
    reason: str
    parked_at: datetime
    rows: int
    head: UUID | None


async def list_parked(db: Database, limit: int = 1000, *, table: OutboxTable | None = None) -> list[ParkedKey]:
    """Return parked keys, the longest parked first; `table` for a relay on another table than ours."""
    statements = await _statements(db, table)
    return [ParkedKey(*row) for row in await db.fetch(statements.parked_keys, limit)]


async def park(db: Database, topic: str, key: str, reason: str) -> bool:
    """Publish nothing of this key until it is resumed; relays notice within a second. False: it was parked already."""
    return bool(await db.fetchval(sql.mark_parked, topic, key, reason))


async def resume(db: Database, topic: str, key: str) -> int:
    """Let a parked key go on, in its order; returns how many events wait no longer."""
    return await _decide(db, lambda tx: _resume(tx, topic, key))


async def skip(
    db: Database, topic: str, key: str, event: UUID | None = None, *, table: OutboxTable | None = None
) -> UUID:
    """Leave out one event of a parked key (its first one), for good, and let the key go on; returns its id."""
    sql = await _statements(db, table)

    async def decision(tx: Transaction) -> UUID:
        skipped = await tx.fetchval(sql.skip, topic, key, event)
        if skipped is None:
            raise _nothing(topic, key, event)
        await _resume(tx, topic, key)
        return UUID(str(skipped))

    return await _decide(db, decision)


async def replay(
    db: Database,
    topic: str,
    key: str,
    payload: str | None = None,
    event: UUID | None = None,
    *,
    table: OutboxTable | None = None,
) -> UUID:
    """Let a parked key go on, with another payload for one of its events (the first one); returns its id.

    An event that was skipped may be replayed too (not in a table of somebody else's): it goes out where its number puts
    it. UnusableEvent: the new payload
    isn't JSON, or is too large.
    """
    if payload is not None:
        _check(payload, topic, key)
    sql = await _statements(db, table)

    async def decision(tx: Transaction) -> UUID:
        edited = await tx.fetchval(sql.edit, topic, key, event, payload)
        if edited is None:
            raise _nothing(topic, key, event)
        await _resume(tx, topic, key)
        return UUID(str(edited))

    return await _decide(db, decision)


async def _decide(db: Database, decision: Callable[[Transaction], Awaitable[_T]]) -> _T:
    """In one transaction; one that PostgreSQL took back because of a deadlock has done nothing and is begun again."""
    for _ in range(DEADLOCK_TRIES - 1):
        try:
            async with db.transaction() as tx:
                return await decision(tx)
        except Deadlock:
            await asyncio.sleep(DEADLOCK_PAUSE)
    async with db.transaction() as tx:
        return await decision(tx)


async def _resume(tx: Transaction, topic: str, key: str) -> int:
    known = await tx.fetchval(sql.unmark_parked, topic, key)
    await tx.execute(sql.keep)
    moved: int = await tx.fetchval(sql.move_back, topic, key)
    if not known and not moved:
        raise OutboxError(f"key {key!r} of topic {topic!r} is not parked")
    return moved


async def _statements(db: Database, table: OutboxTable | None) -> Any:
    return sql if table is None else await TableStore(db, table).statements()


def _check(payload: str, topic: str, key: str) -> None:
    try:
        msgspec.json.decode(payload.encode())
    except msgspec.DecodeError as error:
        raise UnusableEvent(f"key {key!r} of topic {topic!r}: the new payload isn't JSON: {error}") from error
    check_payload(topic, key, payload)


def _nothing(topic: str, key: str, event: UUID | None) -> OutboxError:
    which = f"event {event}" if event else "an event"
    return OutboxError(f"key {key!r} of topic {topic!r} has no parked rows: {which} was not found; see `outbox status`")
