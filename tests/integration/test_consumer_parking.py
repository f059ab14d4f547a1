"""Nothing overtakes a parked record of its key: what comes after it waits behind it, and follows it in order."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from backstay.db import Database, Transaction
from backstay.messaging import (
    SHARED,
    Consumer,
    Envelope,
    Event,
    MemoryBroker,
    Parked,
    audit,
    discard,
    list_dead_letters,
    replay,
)
from backstay.messaging.inbox import COMPONENT
from backstay.testing import eventually

MIGRATION = "CREATE TABLE ledger (seq bigint GENERATED ALWAYS AS IDENTITY, key text, number int)"


class Counted(Event, topic="counts", type="count.made", key="key"):
    key: str
    number: int


class World:
    """A database, a broker with one partition, and handlers that refuse what is in `bad`."""

    def __init__(self, db: Database) -> None:
        self.db, self.broker = db, MemoryBroker()
        self.bad: set[int] = set()

    def consumer(self, *, batch: bool = False, **options: Any) -> Consumer:
        known = {"attempts": 2, "retry_wait": 0.01, "replay_every": 0.02} | options
        consumer = Consumer("g", db=self.db, broker=self.broker, **known)

        async def write(event: Counted, tx: Transaction) -> None:
            await tx.execute("INSERT INTO ledger (key, number) VALUES ($1, $2)", event.key, event.number)
            if event.number in self.bad:
                raise LookupError(f"no {event.number}")

        async def write_all(events: Any, tx: Transaction) -> None:
            for event in events:
                await write(event, tx)

        consumer.on_batch(Counted)(write_all) if batch else consumer.on(Counted, locks=SHARED)(write)
        return consumer

    async def publish(self, *numbers: int, key: str = "k", data: bytes | None = None) -> None:
        async with self.broker.producer() as producer:
            await producer.publish(
                [
                    Envelope.record_for(
                        topic="counts",
                        key=key,
                        id=uuid4(),
                        type="count.made",
                        source="/test",
                        data=data or msgspec.json.encode(Counted(key=key, number=number)),
                    )
                    for number in numbers
                ]
            )

    def wrote(self, *expected: int, key: str = "k") -> Any:
        async def check() -> bool:
            rows = await self.db.fetch("SELECT number FROM ledger WHERE key = $1 ORDER BY seq", key)
            return [row["number"] for row in rows] == list(expected)

        return check

    def open(self, count: int) -> Any:
        async def check() -> bool:
            return len(await list_dead_letters(self.db)) == count

        return check


@pytest.fixture
async def world(database: str, tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "0001_ledger.sql").write_text(MIGRATION)
    db = Database("parking", dsn=database, migrations=tmp_path)
    db.requires(COMPONENT)
    world = World(db)
    await world.broker.create_topics({"counts": 1})
    async with db:
        yield world


@pytest.mark.parametrize("batch", [False, True], ids=["each", "batch"])
async def test_successors_of_a_parked_record_wait_behind_it(world: World, batch: bool) -> None:
    """In the same transaction and in later ones, and after a restart; other keys go on."""
    world.bad = {2}
    async with world.consumer(batch=batch) as consumer:
        await world.publish(1, 2, 3)
        await world.publish(1, 2, 3, key="2")  # same numbers, so its own 2 is parked as well
        await world.publish(7, 8, key="j")
        await eventually(world.wrote(7, 8, key="j"))
        await eventually(world.open(4))
        assert (consumer.statistics().dead_letters, consumer.statistics().held) == (4, 2)
    async with world.consumer(batch=batch):
        await world.publish(4)
        await world.publish(9, key="j")
        await eventually(world.wrote(7, 8, 9, key="j"))
        await eventually(world.open(5))

    letters = await list_dead_letters(world.db, key="k")
    assert [letter.waiting for letter in letters] == [False, True, True]
    assert ["no 2" in letters[0].cause, "held back" in letters[1].cause, letters[1].attempts] == [True, True, 0]
    assert await world.wrote(1)()


async def test_a_replayed_record_is_followed_by_those_that_waited(world: World) -> None:
    """Asking for the first is enough; order is kept, and the key flows again afterwards."""
    world.bad = {1, 3}
    async with world.consumer():
        await world.publish(1, 2, 3, 4)
        await eventually(world.open(4))
        first, *_ = await list_dead_letters(world.db)
        world.bad = {3}
        await replay(world.db, ids=[first.id], actor="ann")
        await eventually(world.wrote(1, 2))  # 3 fails again, 4 goes on waiting
        await eventually(world.open(2))
        world.bad = set()
        await replay(world.db, key="k")
        await eventually(world.wrote(1, 2, 3, 4))
        await world.publish(5)
        await eventually(world.wrote(1, 2, 3, 4, 5))

    assert await list_dead_letters(world.db) == []
    assert [one.actor for one in await audit(world.db)][-1] == "ann"


async def test_a_successor_alone_is_not_replayed(world: World) -> None:
    """It stays asked for until the one before it is settled."""
    world.bad = {1}
    async with world.consumer():
        await world.publish(1, 2)
        await eventually(world.open(2))
        first, second = await list_dead_letters(world.db)
        await replay(world.db, ids=[second.id])
        await world.publish(5, key="j")
        await eventually(world.wrote(5, key="j"))
        assert await world.wrote()()
        await discard(world.db, [first.id], reason="a test order", actor="bob")
        await eventually(world.wrote(2))

    decision, _ = await audit(world.db)
    assert (decision.actor, decision.action, decision.letters) == ("bob", "discard", (first.id,))
    assert decision.filters["reason"] == "a test order"


async def test_a_record_that_cannot_be_read_holds_its_key_too(world: World) -> None:
    """A handled type is a step of its aggregate, readable or not."""
    async with world.consumer():
        await world.publish(1, data=b"not json")
        await world.publish(2)
        await world.publish(3, key="j")
        await eventually(world.wrote(3, key="j"))
        await eventually(world.open(2))


async def test_keys_are_not_held_where_order_does_not_matter(world: World) -> None:
    """`hold_keys=False`: later ones go on without the parked one."""
    world.bad = {1}
    async with world.consumer(hold_keys=False):
        await world.publish(1, 2)
        await eventually(world.wrote(2))
        await eventually(world.open(1))


async def test_a_replay_chooses_by_filters_and_a_dry_run_changes_nothing(world: World) -> None:
    """Key, topic, cause and time choose; the audit has a line for what was done, none for what was only shown."""
    world.bad = {1, 2}
    async with world.consumer():
        await world.publish(1, key="a")
        await world.publish(2, key="b")
        await eventually(world.open(2))
        now = datetime.now(UTC)
        for filters, found in (
            ({"key": "a"}, 1),
            ({"cause": "no 2"}, 1),
            ({"topic": "counts"}, 2),
            ({"topic": "other"}, 0),
            ({"since": now + timedelta(hours=1)}, 0),
            ({"until": now + timedelta(hours=1), "type": "count.made", "group": "g"}, 2),
        ):
            assert len(await replay(world.db, dry_run=True, **filters)) == found, filters
        assert await audit(world.db) == []
        world.bad = set()
        await replay(world.db, cause="no 2")
        await eventually(world.wrote(2, key="b"))

    (decision,) = await audit(world.db)
    assert decision.filters == {"cause": "no 2"}
    assert await world.wrote(key="a")()


async def test_others_are_told_in_the_transaction_that_parks(world: World) -> None:
    """The hook sees every parked record, and what it writes is there if the dead letter is."""
    world.bad = {1}
    seen: list[Parked] = []
    consumer = world.consumer()

    async def tell(tx: Transaction, parked: Parked) -> None:
        seen.append(parked)
        await tx.execute("INSERT INTO ledger (key, number) VALUES ($1, 0)", parked.topic)

    consumer.on_parked(tell)
    async with consumer:
        await world.publish(1, 2)
        await eventually(world.wrote(0, 0, key="counts.g.dlt"))

    assert [(one.waiting, one.type, one.record.offset) for one in seen] == [
        (False, "count.made", 0),
        (True, "count.made", 1),
    ]


async def test_events_that_arrive_during_a_replay_neither_overtake_nor_get_stuck(world: World) -> None:
    """While the tail of a key drains, new events of it join the end, until the key flows by itself again."""
    world.bad = {0}
    async with world.consumer():
        await world.publish(*range(20))
        await eventually(world.open(20), timeout=30)
        world.bad = set()
        await replay(world.db, key="k")
        for number in range(20, 80, 3):
            await world.publish(number, number + 1, number + 2)
            await world.wrote()()  # some time passes
        await eventually(world.wrote(*range(80)), timeout=60)

    assert await list_dead_letters(world.db) == []
