"""What strict mode writes down in a real PostgreSQL: under an epoch, forgotten by whoever takes over."""

from collections.abc import AsyncIterator, Mapping
from uuid import UUID, uuid4

import pytest

from backstay.db import Database
from backstay.outbox import Outbox, PostgresStore, append, park
from backstay.outbox.strict import GROUPS, shards_of

ME, OTHER = uuid4(), uuid4()


class Notebook:
    """A session of one relay that holds all the shards, and the rows of one group."""

    def __init__(self, session: object, epochs: Mapping[int, int], rows: dict[int, list[int]], group: int) -> None:
        self.session, self.rows, self.group = session, rows, group
        self.epochs = {shard: epochs[shard] for shard in shards_of(group)}

    async def note(self, mark: UUID, relay: UUID = ME) -> bool:
        return await self.session.note(relay, self.group, mark, self.rows, self.epochs)  # type: ignore[attr-defined,no-any-return]

    async def settle(self, *marks: UUID, relay: UUID = ME) -> int | None:
        known = [str(mark) for mark in marks]
        return await self.session.settle(relay, self.group, self.epochs, known)  # type: ignore[attr-defined,no-any-return]


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    opened = Database("bar", dsn=database)
    Outbox(opened)
    async with opened:
        yield opened


@pytest.fixture
async def notebook(db: Database) -> AsyncIterator[Notebook]:
    async with db.transaction() as tx:
        for n in range(5):
            await append(tx, topic="pours", key="cup", type="pour.done", payload={"n": n})
    rows: dict[int, list[int]] = {}
    for row in await db.fetch("SELECT shard, seq FROM outbox ORDER BY seq"):
        rows.setdefault(row["shard"], []).append(row["seq"])
    async with PostgresStore(db).open() as session:
        await session.renew(ME, "me", 60.0)
        epochs = await session.acquire(ME, range(64), 60.0)
        yield Notebook(session, epochs, rows, next(iter(rows)) * GROUPS // 64)


async def waiting(db: Database) -> int:
    return int(await db.fetchval("SELECT count(*) FROM outbox"))


async def test_what_was_committed_is_deleted(db: Database, notebook: Notebook) -> None:
    """Rows noted under a committed mark are deleted, and the note is forgotten."""
    mark = uuid4()
    assert await notebook.note(uuid4())
    assert await notebook.note(mark)
    assert await notebook.settle(mark, uuid4()) == 5
    assert await notebook.settle(mark) == 0
    assert await waiting(db) == 0


async def test_what_was_not_committed_stays(db: Database, notebook: Notebook) -> None:
    """Rows noted under another mark than the committed ones are published again."""
    assert await notebook.note(uuid4())
    assert await notebook.settle(uuid4()) == 0
    assert await waiting(db) == 5


async def test_only_the_owner_notes_and_settles(db: Database, notebook: Notebook) -> None:
    """Neither works under an epoch that is over, or for somebody else; and the owner's note stays."""
    mark = uuid4()
    assert await notebook.note(mark)
    assert not await notebook.note(uuid4(), relay=OTHER)
    assert await notebook.settle(mark, relay=OTHER) is None
    await db.execute("UPDATE outbox_shards SET epoch = epoch + 1 WHERE shard = $1", notebook.group * 8)
    assert not await notebook.note(uuid4())
    assert await notebook.settle(mark) is None
    assert await db.fetchval("SELECT mark FROM outbox_transactions") == mark
    assert await waiting(db) == 5


async def test_published_rows_that_were_put_aside(db: Database, notebook: Notebook) -> None:
    """A key that an operator parked while its batch was on its way: what was committed isn't published later."""
    mark = uuid4()
    assert await notebook.note(mark)
    await park(db, "pours", "cup", "looking into it")
    await notebook.session.gather(ME, notebook.epochs, [])  # type: ignore[attr-defined]
    assert await waiting(db) == 0
    assert await notebook.settle(mark) == 5
    assert await db.fetchval("SELECT count(*) FROM outbox_parked") == 0


async def test_a_table_has_a_name_of_its_own(db: Database) -> None:
    """The name that goes into transactional ids is one for all relays of the table."""
    async with PostgresStore(db).open() as one, PostgresStore(db).open() as two:
        assert UUID(await one.identity()) == UUID(await two.identity())  # type: ignore[attr-defined]
