"""The outbox commands, as processes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backstay.db import Database
from backstay.messaging import KafkaBroker
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


@pytest.mark.kafka
async def test_relay_process(db: Database, database: str, kafka: Any) -> None:
    """`backstay relay` publishes beside any service, and gives everything back at SIGTERM."""
    broker = KafkaBroker(kafka.bootstrap, flavor=kafka.flavor)
    await broker.create_topics({"glasses": 6})
    async with db.transaction() as tx:
        await append(tx, topic="glasses", key="a", type="pour.done", payload={})
    process = await start("relay", database, f"kafka://{kafka.bootstrap}", "--flavor", kafka.flavor)
    try:
        await eventually(lambda: drained(db), timeout=30)
        status = await read_status(db)
        assert [(one.name, one.shards) for one in status.relays] == [("relay", 64)]
        assert status.unowned == 0
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()

    assert process.returncode == 0, err.decode()
    assert "stopped: 1 published" in out.decode()
    assert (await read_status(db)).unowned == 64
    await broker.aclose()


async def drained(db: Database) -> bool:
    return not await db.fetchval("SELECT EXISTS (SELECT FROM outbox)")
