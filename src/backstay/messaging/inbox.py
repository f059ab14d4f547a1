"""The memory that makes an effect happen once: one row per group and event, written in the handler's transaction."""

import logging
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

from backstay.clock import SYSTEM, Clock
from backstay.db import Component, Database, DatabaseError, Queries, Transaction

log = logging.getLogger("backstay.messaging")

COMPONENT = Component("messaging", Path(__file__).parent / "migrations")
PRUNE_BATCH = 5000  # rows deleted by one statement
DAYS_AHEAD = 3  # days whose partitions are made before they begin
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '2s'"  # consumers wait behind who changes the table

sql = Queries.load(__package__)


async def claim(tx: Transaction, group: str, ids: Sequence[UUID]) -> tuple[set[UUID], bool]:
    """Take these events for the group; returns those that were not taken before, and whether any key may be held.

    If another transaction is about to take one, this waits for its outcome.
    """
    rows = await tx.fetch(sql.claim, group, ids)
    # Whoever took the others may have parked them just now: then the answer about keys is older than that.
    held = 0 < len(rows) < len(ids) or any(row["held"] for row in rows)
    return {row["event_id"] for row in rows}, held


async def prune_inbox(db: Database, *, older_than: datetime, clock: Clock = SYSTEM) -> int:
    """Forget events handled before that moment (aware), whole days at a time; returns about how many.

    Call it at least once a day: it also makes the partitions of the next days. An event delivered again after it was
    forgotten is handled again: keep rows longer than anything is replayed.
    """
    today = clock.now().astimezone(UTC).date()
    pruned = 0
    try:
        for ahead in range(1, DAYS_AHEAD + 1):
            await _make(db, today + timedelta(days=ahead))
        for row in await db.fetch(sql.inbox_days):
            if _midnight(day := _day(row["name"])) + timedelta(days=1) <= older_than and day < today:
                pruned += await _drop(db, row["name"], older_than)
    except DatabaseError as error:
        if not error.transient:
            raise
        log.info("consumer.pruning-delayed", extra={"error": str(error)})  # somebody is in the way: next time
    return pruned + await _prune_rest(db, older_than)


async def _make(db: Database, day: date) -> None:
    """The partition of a day, unless it exists or events of that day are in the rest already."""
    first, next_ = _first_id(day), _first_id(day + timedelta(days=1))
    async with db.transaction() as tx:
        if not await tx.fetchval(sql.may_make_inbox_day, _name(day), first, next_):
            return
        await tx.execute(LOCK_TIMEOUT)
        await tx.execute(f"CREATE TABLE {_name(day)} PARTITION OF inbox FOR VALUES FROM ('{first}') TO ('{next_}')")


async def _drop(db: Database, name: str, older_than: datetime) -> int:
    """Forget a day; what was handled later than it happened goes to the rest."""
    async with db.transaction() as tx:
        if not await tx.fetchval(sql.lock_inbox_days):
            return 0
        await tx.execute(LOCK_TIMEOUT)
        rows = int(await tx.fetchval(sql.inbox_day_rows, name) or 0)
        await tx.execute(f"ALTER TABLE inbox DETACH PARTITION {name}")
        await tx.execute(f"INSERT INTO inbox SELECT * FROM {name} WHERE handled_at >= $1", older_than)  # noqa: S608
        await tx.execute(f"DROP TABLE {name}")
    return rows


async def _prune_rest(db: Database, older_than: datetime) -> int:
    pruned = 0
    while True:
        gone = int((await db.execute(sql.prune_inbox, older_than, PRUNE_BATCH)).split()[-1])
        pruned += gone
        if gone < PRUNE_BATCH:
            return pruned


def _name(day: date) -> str:
    return f"inbox_{day:%Y%m%d}"


def _day(name: str) -> date:
    return datetime.strptime(name.removeprefix("inbox_"), "%Y%m%d").replace(tzinfo=UTC).date()


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _first_id(day: date) -> UUID:
    """No id of version 7 from that day on is smaller."""
    return UUID(int=int(_midnight(day).timestamp() * 1000) << 80)
