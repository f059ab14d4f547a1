"""What a consumer parks is copied to a topic of its own, through the outbox of the service."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from backstay.db import Database, Transaction
from backstay.messaging import SHARED, Consumer, Event, MemoryBroker, Parked, Record
from backstay.outbox import Outbox
from backstay.service import Service
from backstay.service.dead_letters import DeadLetterTopics
from backstay.testing import eventually


class Made(Event, topic="things", type="thing.made", key="key"):
    key: str


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    db = Database("copies", dsn=database)
    Outbox(db)
    Consumer("g", db=db)
    async with db:
        yield db


def parked(**record: Any) -> Parked:
    known = {"topic": "things", "key": b"k", "value": b"{}", "headers": (("ce_type", b"thing.made"),)} | record
    return Parked("a group", uuid4(), "thing.made", Record(**known, partition=0, offset=7), "ValueError: no", 5, False)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"key": None, "value": None, "headers": (("x", None),)},
        {"key": b"\xff\x00", "value": b"\x00\xff", "headers": (("x\0", b"\xff\0"),)},
        {"key": b"k" * 3000, "value": b"x" * 2_000_000},
        {"key": b""},
    ],
    ids=["plain", "nothing", "bytes", "large", "empty"],
)
async def test_any_record_can_be_copied(db: Database, record: dict[str, Any]) -> None:
    """Whatever a record holds, its copy never keeps it from being parked."""
    one = parked(**record)
    async with db.transaction() as tx:
        await DeadLetterTopics(Consumer("a group", db=db)).copy(tx, one)

    row = await db.fetchrow("SELECT * FROM outbox")
    assert row is not None
    payload = json.loads(row["payload"])
    assert (row["aggregatetype"], row["type"]) == ("things.a-group.dlt", "dead-letter.parked")
    assert (payload["offset"], payload["cause"], payload["attempts"]) == (7, "ValueError: no", 5)
    assert payload["value_size"] == (None if one.record.value is None else len(one.record.value))
    if one.record.key:
        assert base64.b64decode(payload["key_base64"]) == one.record.key


async def test_a_service_with_consumer_and_relay_copies_its_dead_letters(database: str) -> None:
    """Nothing has to be configured: the topic is made, the copy arrives."""
    db, broker = Database("copying", dsn=database), MemoryBroker()
    box, consumer = Outbox(db), Consumer("g", db=db, attempts=1)

    @consumer.on(Made, locks=SHARED)
    async def refuse(event: Made, tx: Transaction) -> None:
        raise LookupError("no")

    await broker.create_topics({"things": 1})
    service = Service("copying", owns=[db, box.relay(), consumer], broker=broker)
    seen: list[Record] = []
    async with service.running(environ={"DATABASE_URL": database}):
        async with db.transaction() as tx:
            await box.append(tx, Made(key="k"))

        async def arrived() -> bool:
            seen[:] = broker.records("things.g.dlt")
            return bool(seen)

        await eventually(arrived, timeout=20)

    assert json.loads(seen[0].value or b"")["cause"] == "LookupError: no"
    assert seen[0].key == b"k"
