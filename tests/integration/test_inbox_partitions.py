"""The inbox forgets by dropping days, and knows every event as long as it shall."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from backstay.db import Component, Database
from backstay.messaging import prune_inbox
from backstay.messaging.inbox import COMPONENT, claim
from backstay.testing import FakeClock

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
MIGRATIONS = COMPONENT.path


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    db = Database("inbox", dsn=database)
    db.requires(COMPONENT)
    async with db:
        yield db


def event_at(moment: datetime) -> UUID:
    """An id of version 7 of that moment."""
    tail = uuid4().int & ((1 << 62) - 1)
    return UUID(int=int(moment.timestamp() * 1000) << 80 | 0x7 << 76 | 0b10 << 62 | tail)


async def handle(db: Database, *ids: UUID, at: datetime | None = None) -> set[UUID]:
    async with db.transaction() as tx:
        fresh, _ = await claim(tx, "g", ids)
        if at is not None:
            await tx.execute("UPDATE inbox SET handled_at = $1 WHERE event_id = ANY ($2)", at, list(ids))
    return fresh


async def days(db: Database) -> list[str]:
    rows = await db.fetch(
        "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'inbox'::regclass ORDER BY 1"
    )
    return [row["relname"] for row in rows]


async def test_the_next_days_are_made_and_old_ones_dropped(db: Database) -> None:
    """An event is known until its day is dropped; other days keep theirs."""
    clock = FakeClock(NOON)
    await prune_inbox(db, older_than=NOON - timedelta(days=7), clock=clock)
    assert await days(db) == ["inbox_20260311", "inbox_20260312", "inbox_20260313", "inbox_rest"]
    today, tomorrow, after = (event_at(NOON + timedelta(days=n)) for n in range(3))
    for moment, ident in ((NOON, today), (NOON + timedelta(days=1), tomorrow), (NOON + timedelta(days=2), after)):
        assert await handle(db, ident, at=moment) == {ident}

    clock.advance(timedelta(days=9).total_seconds())
    await prune_inbox(db, older_than=NOON + timedelta(days=2) - timedelta(hours=6), clock=clock)

    assert "inbox_20260311" not in await days(db)
    assert {"inbox_20260312", "inbox_20260320"} <= set(await days(db))
    assert await handle(db, today, tomorrow, after) == {today, tomorrow}  # forgotten; the last one is still known


async def test_an_event_handled_long_after_it_happened_stays_known(db: Database) -> None:
    """Its day is dropped, but the time since it was handled counts."""
    clock = FakeClock(NOON)
    await prune_inbox(db, older_than=NOON - timedelta(days=7), clock=clock)
    late = event_at(NOON + timedelta(days=1))
    await handle(db, late, at=NOON + timedelta(days=20))

    clock.advance(timedelta(days=21).total_seconds())
    await prune_inbox(db, older_than=NOON + timedelta(days=14), clock=clock)

    assert await handle(db, late) == set()


async def test_ids_of_other_versions_are_known_and_forgotten_too(db: Database) -> None:
    """They are in the rest, and are deleted there."""
    clock = FakeClock(NOON)
    await prune_inbox(db, older_than=NOON, clock=clock)
    old, young = uuid4(), uuid4()
    await handle(db, old, at=NOON - timedelta(days=8))
    await handle(db, young, at=NOON)

    assert await prune_inbox(db, older_than=NOON - timedelta(days=7), clock=clock) == 1
    assert await handle(db, old, young) == {old}


async def test_a_day_that_has_begun_in_the_rest_stays_there(db: Database) -> None:
    """No event is ever known in two places, so a partition isn't made where rows of it exist."""
    ident = event_at(NOON + timedelta(days=1))
    await handle(db, ident)
    await prune_inbox(db, older_than=NOON - timedelta(days=7), clock=FakeClock(NOON))

    assert "inbox_20260311" not in await days(db)
    assert await handle(db, ident) == set()


async def test_an_inbox_of_before_is_taken_over(database: str, tmp_path: Path) -> None:
    """What was handled before the upgrade is still known after it."""
    for name in ("0001_inbox.sql", "0002_parking.sql"):
        (tmp_path / name).write_text((MIGRATIONS / name).read_text())
    before = Database("inbox", dsn=database)
    before.requires(Component("messaging", tmp_path))
    ident = uuid4()
    async with before:
        await before.execute("INSERT INTO inbox (consumer_group, event_id) VALUES ('g', $1)", ident)
    after = Database("inbox", dsn=database)
    after.requires(COMPONENT)
    async with after:
        assert await handle(after, ident) == set()
