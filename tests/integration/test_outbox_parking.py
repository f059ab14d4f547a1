"""Parked keys in the hands of an operator, and a relay that has few rights."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from backstay.cli import app
from backstay.db import Database, Deadlock, Transaction
from backstay.messaging import MemoryBroker, PublishError
from backstay.outbox import (
    Outbox,
    OutboxError,
    UnusableEvent,
    append,
    list_parked,
    park,
    parking,
    read_status,
    replay,
    resume,
    skip,
)
from backstay.testing import eventually

FAST: dict[str, float] = {"lease": 1.0, "gather": 0.01, "max_idle": 0.02}


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    opened = Database("bar", dsn=database)
    Outbox(opened)
    async with opened:
        yield opened


async def pour(db: Database, *numbers: object, key: str = "k") -> None:
    async with db.transaction() as tx:
        for n in numbers:
            await append(tx, topic="pours", key=key, type="pour.done", payload={"n": n})


def seen(broker: MemoryBroker, key: bytes = b"k") -> list[object]:
    return [json.loads(record.value or b"")["n"] for record in broker.records("pours") if record.key == key]


@pytest.fixture
async def parked(db: Database) -> MemoryBroker:
    """Key k: 1 is published, 2 was refused and parked with 3; the broker would take them now."""
    broker = MemoryBroker()
    broker.refuse = lambda record: PublishError("record", "too large") if b'"n": 2' in (record.value or b"") else None
    await pour(db, 1, 2, 3)
    async with Outbox(db).relay(broker, **FAST) as relay:
        await eventually(lambda: relay.statistics().parked == 1)
    assert seen(broker) == [1]
    broker.refuse = lambda _: None
    return broker


async def drained(db: Database) -> bool:
    return not await db.fetchval("SELECT EXISTS (SELECT FROM outbox)")


async def test_resume_goes_on_in_order(db: Database, parked: MemoryBroker) -> None:
    """A resumed key goes on where it stopped, before what has come since."""
    await pour(db, 4)
    [one] = await list_parked(db)
    assert (one.topic, one.key, one.reason, one.rows) == ("pours", "k", "too large", 2)
    assert await resume(db, "pours", "k") == 2
    async with Outbox(db).relay(parked, **FAST):
        await eventually(lambda: seen(parked) == [1, 2, 3, 4])
    with pytest.raises(OutboxError, match="not parked"):
        await resume(db, "pours", "k")


@pytest.mark.parametrize("step", [resume, skip, replay])
async def test_deadlock_is_repeated(
    db: Database, parked: MemoryBroker, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay may lock what an operator's statement waits for: PostgreSQL takes one of them back, we begin again."""
    really, asked = parking._resume, []

    async def deadlocked(tx: Transaction, topic: str, key: str) -> int:
        asked.append(key)
        moved = await really(tx, topic, key)
        if len(asked) < 3:
            raise Deadlock("deadlock detected", sqlstate="40P01")
        return moved

    monkeypatch.setattr(parking, "_resume", deadlocked)
    await step(db, "pours", "k")

    assert asked == ["k"] * 3
    assert not await list_parked(db)


async def test_skip_keeps_what_it_skips(db: Database, parked: MemoryBroker) -> None:
    """A skipped event isn't published, is still there, and can be replayed later."""
    ident = await skip(db, "pours", "k")
    async with Outbox(db).relay(parked, **FAST):
        await eventually(lambda: seen(parked) == [1, 3])
        [row] = await db.fetch("SELECT id, payload, skipped_at FROM outbox_parked")
        assert row["id"] == ident
        assert row["skipped_at"] is not None
        assert await replay(db, "pours", "k", event=ident) == ident
        await eventually(lambda: seen(parked) == [1, 3, 2])


async def test_edit_and_replay(db: Database, parked: MemoryBroker) -> None:
    """An edited event goes out in its place; what isn't JSON or names nothing is refused."""
    with pytest.raises(UnusableEvent, match="isn't JSON"):
        await replay(db, "pours", "k", "{nope")
    with pytest.raises(OutboxError, match="not found"):
        await replay(db, "pours", "k", "{}", event=uuid4())
    await replay(db, "pours", "k", '{"n": "two"}')
    async with Outbox(db).relay(parked, **FAST):
        await eventually(lambda: seen(parked) == [1, "two", 3])


async def test_an_operator_parks(db: Database) -> None:
    """A key parked by hand is left out, gathered, told of, and resumed without a loss."""
    broker = MemoryBroker()
    assert await park(db, "pours", "k", "looking into it")
    assert not await park(db, "pours", "k", "twice")
    await pour(db, 1, 2)
    await pour(db, 9, key="other")
    async with Outbox(db).relay(broker, **FAST):
        await eventually(lambda: seen(broker, b"other") == [9])
        await eventually(lambda: drained(db))
        status = await read_status(db)
        assert [(one.key, one.rows) for one in status.parked] == [("k", 2)]
        assert seen(broker) == []
        await resume(db, "pours", "k")
        await eventually(lambda: seen(broker) == [1, 2])


async def test_resume_races_with_gathering(db: Database) -> None:
    """However parking and resuming interleave with a running relay, every event goes out, in order."""
    broker = MemoryBroker()
    async with Outbox(db).relay(broker, **FAST) as relay:
        for n in range(20):
            await pour(db, n)
            await park(db, "pours", "k", "race")
            relay.nudge()
            await asyncio.sleep(0.01 * (n % 3))
            await resume(db, "pours", "k")
        await eventually(lambda: drained(db), timeout=20)
        await eventually(lambda: len(set(seen(broker))) == 20)

    assert list(dict.fromkeys(seen(broker))) == list(range(20))


async def test_commands(db: Database, parked: MemoryBroker, database: str, tmp_path: Path) -> None:
    """status, park, resume, skip and replay; a refusal is one line and status 1, a mistyped command status 2."""
    run = CliRunner()

    async def backstay(*arguments: str) -> Any:
        return await asyncio.to_thread(run.invoke, app(), ["outbox", *arguments])

    status = await backstay("status", database)
    assert "parked       pours 'k'" in status.output
    assert "too large" in status.output
    payload = tmp_path / "payload.json"
    payload.write_text('{"n": "two"}')
    assert (await backstay("replay", database, "pours", "k", "--payload", str(payload))).exit_code == 0
    assert "is parked" in (await backstay("park", database, "pours", "k")).output
    assert (await backstay("skip", database, "pours", "k")).exit_code == 1
    assert "goes on" in (await backstay("resume", database, "pours", "k")).output
    assert (await backstay("resume", database, "pours", "k")).exit_code == 1
    assert (await backstay("skip", database, "pours", "k", "--event", "x")).exit_code == 2
    async with Outbox(db).relay(parked, **FAST):
        await eventually(lambda: seen(parked) == [1, "two", 3])


async def test_a_relay_with_few_rights(db: Database, postgres: Any, database: str) -> None:
    """A relay that owns nothing needs the rights on the outbox's tables, and none to make tables."""
    name = database.rpartition("/")[2]
    role = f"relay_{uuid4().hex[:8]}"
    tables = "outbox_shards, outbox_relays, outbox_parked, outbox_parked_keys"
    postgres.cluster.run_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT CONNECT ON DATABASE {name} TO {role};")
    await db.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
    await db.execute(f"GRANT SELECT ON schema_migrations TO {role}")
    await db.execute(f"GRANT SELECT, DELETE ON outbox TO {role}")
    await db.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}")
    broker = MemoryBroker()
    await pour(db, 1)
    other = Database("relay", dsn=postgres.dsn(name, role, "secret"))
    try:
        async with other, Outbox(other).relay(broker, **FAST):
            await eventually(lambda: seen(broker) == [1])
            await eventually(lambda: drained(db))
    finally:
        postgres.cluster.run_sql(f"DROP OWNED BY {role}; DROP ROLE {role};", name)
