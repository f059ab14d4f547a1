"""Strict mode on a real PostgreSQL and Apache Kafka: readers of what is committed see every event once."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from backstay.db import Database
from backstay.messaging import Event, KafkaBroker
from backstay.outbox import Outbox, Relay
from backstay.testing import armed, eventually

pytestmark = [pytest.mark.kafka, pytest.mark.apache]
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

NOTED = """SELECT EXISTS (
    SELECT FROM outbox_transactions t JOIN outbox o ON o.shard = ANY (t.shards) AND o.seq = ANY (t.seqs))"""


class Poured(Event, topic="strict-pours", type="pour.done", key="cup"):
    cup: UUID
    n: int


@pytest.fixture
async def broker(kafka: Any) -> AsyncIterator[KafkaBroker]:
    if kafka.flavor == "embedded":
        pytest.skip("the embedded broker has no transactions")
    broker = KafkaBroker(kafka.bootstrap)
    await broker.create_topics({"strict-pours": 6})
    yield broker
    await broker.aclose()


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    opened = Database("bar", dsn=database, max_size=10)
    Outbox(opened)
    async with opened:
        yield opened


async def fill(db: Database, cups: list[UUID], first: int, count: int) -> None:
    for start in range(first, first + count, 1000):
        events = [Poured(cup=cups[n % len(cups)], n=n) for n in range(start, min(start + 1000, first + count))]
        async with db.transaction() as tx:
            await Outbox(db).append(tx, *events)


async def committed(broker: KafkaBroker, cups: list[UUID], count: int) -> list[tuple[str, int]]:
    """All that a reader of committed records sees of these cups, until `count` different numbers have come."""
    mine, seen, found = {str(cup) for cup in cups}, [], set()
    tail = broker.tail("strict-pours", LONG_AGO)
    try:
        async with asyncio.timeout(60):
            async for record in tail:
                event = json.loads(record.value or b"")
                if event["cup"] in mine:
                    seen.append((event["cup"], event["n"]))
                    found.add(event["n"])
                if len(found) == count:
                    return seen
    finally:
        await tail.aclose()
    raise AssertionError("the tail ended")


def in_order_and_once(seen: list[tuple[str, int]], count: int) -> None:
    assert Counter(seen).most_common(1)[0][1] == 1
    assert sorted(n for _, n in seen) == list(range(count))
    for cup in {cup for cup, _ in seen}:
        numbers = [n for other, n in seen if other == cup]
        assert numbers == sorted(numbers)


async def test_deaths_between_commit_and_delete(db: Database, broker: KafkaBroker) -> None:
    """However often a relay's life ends between Kafka's commit and the delete, every event is seen once, in order."""
    cups = [uuid4() for _ in range(100)]
    await fill(db, cups, 0, 5000)
    with armed("outbox.relay.after-publish=error@2*4,outbox.relay.before-delete=error@2*2"):
        async with Outbox(db).relay(broker, lease=2.0, batch_rows=200, strict=True) as relay:
            await eventually(lambda: drained(db), timeout=90)
            statistics = relay.statistics()

    assert statistics.restarts >= 3
    assert statistics.recovered > 0
    in_order_and_once(await committed(broker, cups, 5000), 5000)


async def test_a_zombie_is_fenced_by_the_broker(db: Database, broker: KafkaBroker) -> None:
    """A relay that noted its batch and then slept through a change of hands can't commit it any more."""
    cups = [uuid4() for _ in range(50)]
    async with Outbox(db).relay(broker, name="zombie", lease=300.0, strict=True) as zombie:
        await fill(db, cups, 0, 100)
        await eventually(lambda: drained(db), timeout=60)
        awake = asyncio.Event()
        sleeps(zombie, awake)
        await fill(db, cups[:1], 100, 1)
        await eventually(lambda: db.fetchval(NOTED), timeout=30)
        await db.execute("UPDATE outbox_shards SET lease_until = now() - interval '1 second'")
        await db.execute("DELETE FROM outbox_relays")
        async with Outbox(db).relay(broker, name="heir", lease=5.0, strict=True) as heir:
            await eventually(lambda: drained(db), timeout=60)
            assert heir.statistics().published == 1
        awake.set()
        await eventually(lambda: zombie.statistics().fenced == 1, timeout=60)
        await fill(db, cups, 101, 100)
        await eventually(lambda: drained(db), timeout=60)

    in_order_and_once(await committed(broker, cups, 201), 201)


def sleeps(relay: Relay, awake: asyncio.Event) -> None:
    """From now on it looks at no lease, and what it has noted goes to the broker when it is awake again."""

    async def look() -> bool:
        await asyncio.Event().wait()
        return False

    cycle: Any = relay._cycle
    cycle._look = look
    for group in cycle._groups.values():
        group.producer.publish = late(group.producer.publish, awake)


def late(publish: Any, awake: asyncio.Event) -> Any:
    async def publish_late(*arguments: Any) -> Any:
        await awake.wait()
        return await publish(*arguments)

    return publish_late


async def drained(db: Database) -> bool:
    return not await db.fetchval("SELECT EXISTS (SELECT FROM outbox)")
