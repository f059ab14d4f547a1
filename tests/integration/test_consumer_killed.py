"""A consumer killed with SIGKILL on either side of its commit: redelivery happens, the effect doesn't happen twice."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from backstay.db import Database
from backstay.messaging import Envelope, KafkaBroker
from backstay.messaging.inbox import COMPONENT
from backstay.testing import eventually

PROCESS = Path(__file__).parent / "consumer_process.py"
EVENTS = 400


@asynccontextmanager
async def process(*args: str, faults: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    one = await asyncio.create_subprocess_exec(
        sys.executable, str(PROCESS), *args, env={**os.environ, "FAULTS": faults}, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield one
    finally:
        if one.returncode is None:
            one.kill()
        await one.wait()


@pytest.mark.kafka
async def test_a_killed_consumers_events_have_their_effect_once(database: str, kafka: Any, tmp_path: Path) -> None:
    """Killed before a commit, killed after one with its offset uncommitted, then left alone: each event once."""
    topic = f"counts-{uuid4().hex[:12]}"
    (tmp_path / "0001_ledger.sql").write_text(
        "CREATE TABLE ledger (seq bigint GENERATED ALWAYS AS IDENTITY, event_id uuid, key text, number int)"
    )
    broker = KafkaBroker(kafka.bootstrap, flavor=kafka.flavor)
    await broker.create_topics({topic: 3})
    db = Database("consumers", dsn=database, migrations=tmp_path)
    db.requires(COMPONENT)
    where = (database, kafka.bootstrap, kafka.flavor, topic)
    records = [
        Envelope.record_for(
            topic=topic,
            key=str(number % 7),
            id=uuid4(),
            type="count.made",
            source="/service/test",
            data=b'{"key":"%d","number":%d}' % (number % 7, number),
        )
        for number in range(EVENTS)
    ]
    async with db, broker.producer() as producer:
        assert await producer.publish(records) == [None] * EVENTS
        for point in ("before-commit=kill@2", "after-commit=kill@2"):
            async with process(*where, faults=f"killed.consume.{point}") as killed:
                assert await asyncio.wait_for(killed.wait(), 30) == -signal.SIGKILL
        before = await db.fetchval("SELECT count(*) FROM ledger")
        async with process(*where):

            async def all_there() -> bool:
                return bool(await db.fetchval("SELECT count(*) FROM ledger") >= EVENTS)

            await eventually(all_there, timeout=40)
        rows = await db.fetch("SELECT event_id, key, number FROM ledger ORDER BY seq")

    assert 0 < before < EVENTS
    assert sorted(row["number"] for row in rows) == list(range(EVENTS))
    for key in map(str, range(7)):
        assert [row["number"] for row in rows if row["key"] == key] == list(range(int(key), EVENTS, 7))
    assert len({row["event_id"] for row in rows}) == EVENTS
