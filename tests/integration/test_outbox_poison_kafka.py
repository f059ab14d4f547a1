"""What a real broker refuses, and what stays in order around it."""

import asyncio
import json
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from backstay.db import Database
from backstay.messaging import KafkaBroker
from backstay.outbox import Outbox, append, list_parked, replay
from backstay.testing import eventually

pytestmark = pytest.mark.kafka


async def read(broker: KafkaBroker, topic: str, count: int) -> dict[bytes, list[int]]:
    seen: dict[bytes, list[int]] = defaultdict(list)
    tail = broker.tail(topic, datetime.fromtimestamp(0, UTC))
    found = 0
    try:
        async with asyncio.timeout(40):
            async for record in tail:
                n = json.loads(record.value or b"")["n"]
                if n not in seen[record.key or b""]:
                    seen[record.key or b""].append(n)
                    found += 1
                if found == count:
                    return seen
    finally:
        await tail.aclose()
    raise AssertionError("the tail ended")


async def test_too_large_for_the_topic(database: str, kafka: Any) -> None:
    """A record that only the broker finds too large parks its key: no successor gets out before it, none is lost."""
    if kafka.flavor != "apache":
        pytest.skip("the embedded broker has no limit on records")
    topic = f"small-{uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    created = admin.create_topics([NewTopic(topic, 1, 1, config={"max.message.bytes": "20000"})])
    await asyncio.to_thread(created[topic].result, 20)
    broker, db = KafkaBroker(kafka.bootstrap), Database("bar", dsn=database)
    box = Outbox(db)
    async with db:
        async with db.transaction() as tx:
            for n in range(100):
                pad = "x" * 30_000 if n == 30 else "y" * 200
                await append(tx, topic=topic, key=f"k-{n % 5}", type="a.b", payload={"n": n, "pad": pad})
        async with box.relay(broker, gather=0.01) as relay:
            seen = await read(broker, topic, 86)
            await eventually(lambda: relay.statistics().parked == 1, timeout=20)
            assert seen[b"k-0"] == list(range(0, 30, 5))
            for key in range(1, 5):
                assert seen[b"k-%d" % key] == list(range(key, 100, 5))
            [one] = await list_parked(db)
            assert (one.key, one.rows) == ("k-0", 14)
            assert "size" in one.reason.lower() or "large" in one.reason.lower()
            await replay(db, topic, "k-0", '{"n": 30}')
            again = await read(broker, topic, 100)
            assert again[b"k-0"] == list(range(0, 100, 5))
    await broker.aclose()


async def test_missing_topic_waits(database: str, kafka: Any) -> None:
    """Rows of a topic that doesn't exist wait, the relay says so, others flow on; once it is made they go out."""
    here, missing = f"here-{uuid4().hex[:8]}", f"missing-{uuid4().hex[:8]}"
    broker, db = KafkaBroker(kafka.bootstrap, flavor=kafka.flavor), Database("bar", dsn=database)
    if kafka.flavor != "apache":
        pytest.skip("the embedded broker makes topics by itself")
    await broker.create_topics({here: 2})
    box = Outbox(db)
    async with db:
        async with db.transaction() as tx:
            for n in range(20):
                await append(tx, topic=missing, key=f"k-{n % 3}", type="a.b", payload={"n": n})
                await append(tx, topic=here, key=f"k-{n % 3}", type="a.b", payload={"n": n})
        async with box.relay(broker, gather=0.01) as relay:
            await read(broker, here, 20)
            await eventually(lambda: missing in str(relay.problem), timeout=20)
            assert relay.statistics().parked_keys == 0
            await broker.create_topics({missing: 2})
            seen = await read(broker, missing, 20)
            assert seen[b"k-0"] == [0, 3, 6, 9, 12, 15, 18]
            await eventually(lambda: relay.problem is None, timeout=20)
    await broker.aclose()
