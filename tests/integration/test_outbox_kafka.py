"""The whole way: a real PostgreSQL, the relay, a real broker."""

import asyncio
import json
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from backstay.db import Database
from backstay.messaging import Event, KafkaBroker
from backstay.outbox import Outbox
from backstay.testing import eventually

pytestmark = pytest.mark.kafka


class Poured(Event, topic="pours", type="pour.done", key="cup"):
    cup: UUID
    n: int


async def read(broker: KafkaBroker, count: int) -> dict[bytes, list[int]]:
    """First occurrences per key, once `count` different events have been seen."""
    seen: dict[bytes, list[int]] = defaultdict(list)
    found: set[int] = set()
    tail = broker.tail("pours", datetime.fromtimestamp(0, UTC))
    try:
        async with asyncio.timeout(60):
            async for record in tail:
                n = json.loads(record.value or b"")["n"]
                if n not in found:
                    found.add(n)
                    seen[record.key or b""].append(n)
                if len(found) == count:
                    return seen
    finally:
        await tail.aclose()
    raise AssertionError("the tail ended")


async def test_all_the_way_through_a_killed_relay(database: str, kafka: Any) -> None:
    """Events of ten thousand rows reach Kafka in order per key, although the first relay dies on the way."""
    broker = KafkaBroker(kafka.bootstrap, flavor=kafka.flavor)
    await broker.create_topics({"pours": 6})
    db = Database("bar", dsn=database)
    box = Outbox(db)
    async with db:
        cups, written = [uuid4() for _ in range(300)], defaultdict(list)
        for start in range(0, 10_000, 1000):
            events = [Poured(cup=cups[n % 300], n=n) for n in range(start, start + 1000)]
            async with db.transaction() as tx:
                await box.append(tx, *events)
            for event in events:
                written[str(event.cup).encode()].append(event.n)
        first = box.relay(broker, name="first", lease=1.0, batch_rows=100)
        await first.__aenter__()
        await eventually(lambda: first.statistics().published >= 500)
        assert first._task is not None
        first._task.cancel()
        async with box.relay(broker, name="second", lease=1.0) as second:
            assert await read(broker, 10_000) == written
            await eventually(lambda: drained(db))
            assert second.problem is None
    await broker.aclose()


async def drained(db: Database) -> bool:
    return not await db.fetchval("SELECT EXISTS (SELECT FROM outbox)")
