"""The outbox commands, as processes."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backstay.db import Database
from backstay.dev.ports import free_port
from backstay.http import HttpClient
from backstay.messaging import Consumer, KafkaBroker
from backstay.outbox import Outbox, OutboxError, append, read_status
from backstay.testing import eventually


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    opened = Database("bar", dsn=database)
    Outbox(opened)
    async with opened:
        yield opened


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "backstay.cli",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200"},
    )


async def test_status(db: Database, database: str) -> None:
    """`outbox status` tells what waits, by topic, and that nobody is there to publish it."""
    async with db.transaction() as tx:
        for key in ("a", "b", "c"):
            await append(tx, topic="glasses", key=key, type="pour.done", payload={})
    process = await start("outbox", "status", database)
    out, err = await process.communicate()

    assert (process.returncode, err) == (0, b"")
    assert "pending      3" in out.decode()
    assert "64 of 64 shards" in out.decode()
    assert "glasses: 3 of the first 3" in out.decode()


async def test_status_without_an_outbox(database: str) -> None:
    """A database without an outbox is told apart from an empty one."""
    async with Database("bar", dsn=database) as plain:
        with pytest.raises(OutboxError, match="no outbox"):
            await read_status(plain)


async def test_adopt_a_table(database: str) -> None:
    """`outbox adopt` prints what a table of somebody else's needs, and with --apply does it."""
    async with Database("java", dsn=database) as plain:
        await plain.execute(
            "CREATE TABLE outboxevent (id uuid, aggregatetype text, aggregateid text, type text, payload jsonb)"
        )
        process = await start("outbox", "adopt", database, "outboxevent", "--apply")
        out, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        assert "outboxevent is ready" in out.decode()
        await plain.execute("INSERT INTO outboxevent VALUES (gen_random_uuid(), 'order', 'o-1', 'created', '{}')")
        assert await plain.fetchval("SELECT seq FROM outboxevent") == 1


async def test_dead_letters_discarded_and_audited(database: str) -> None:
    """`dead-letters discard` wants a reason and tells what wasn't open; `audit` tells who decided what."""
    opened = Database("bar", dsn=database)
    Consumer("bar", db=opened)
    async with opened:
        await opened.execute(
            'INSERT INTO dead_letters (consumer_group, event_id, type, topic, partition, "offset", header_names,'
            " header_values, cause, attempts, holds, waiting) VALUES ('bar', gen_random_uuid(), 'x', 'orders', 0, 0,"
            " '{}', '{}', 'no', 1, false, false)"
        )
    process = await start("dead-letters", "discard", database, "1", "99", "--reason", "a test order", "--actor", "ann")
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert "1 dead letters are discarded; not open: [99]" in out.decode()
    process = await start("dead-letters", "audit", database)
    out, _ = await process.communicate()

    assert "ann  discard  [1]" in out.decode()
    assert "a test order" in out.decode()


@pytest.mark.kafka
async def test_relay_process(db: Database, database: str, kafka: Any) -> None:
    """`backstay relay` publishes beside any service, and gives everything back at SIGTERM."""
    broker = KafkaBroker(kafka.bootstrap, flavor=kafka.flavor)
    await broker.create_topics({"glasses": 6})
    async with db.transaction() as tx:
        await append(tx, topic="glasses", key="a", type="pour.done", payload={})
    management = free_port()
    flags = ("--flavor", kafka.flavor, "--management-port", str(management))
    process = await start("relay", database, f"kafka://{kafka.bootstrap}", *flags)
    try:
        await eventually(lambda: drained(db), timeout=30)
        async with HttpClient() as http:
            pages = [
                await http.request("127.0.0.1", management, "GET", path, timeout=5.0)
                for path in ("/health/live", "/health/ready", "/metrics", "/info", "/nothing")
            ]
        assert [page.status for page in pages] == [200, 200, 200, 200, 404]
        published = [line for line in pages[2].body.decode().splitlines() if "relay_published_total{" in line]
        assert [line.rpartition(" ")[2] for line in published] == ["1.0"]
        status = await read_status(db)
        assert [(one.name, one.shards) for one in status.relays] == [("relay", 64)]
        assert status.unowned == 0
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()

    assert process.returncode == 0, err.decode()
    summary = [json.loads(line) for line in out.decode().splitlines() if "relay.finished" in line]
    assert [(one["published"], one["repeated"]) for one in summary] == [(1, 0)]
    assert (await read_status(db)).unowned == 64
    await broker.aclose()


async def drained(db: Database) -> bool:
    return not await db.fetchval("SELECT EXISTS (SELECT FROM outbox)")
