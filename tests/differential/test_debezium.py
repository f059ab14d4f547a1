"""A real Debezium in the place of our relay: our table, the connector configuration that we ship, our consumer."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from benchmarks import debezium

from backstay.db import Database, Transaction
from backstay.dev.postgres import Cluster
from backstay.dev.program import spawn, stop
from backstay.messaging import SHARED, Consumer, Envelope, Event, KafkaBroker
from backstay.outbox import Outbox
from backstay.telemetry import TraceContext, use
from backstay.testing import eventually

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.apache,
    pytest.mark.timeout(900),  # the first time Maven fetches the jars
    pytest.mark.skipif(
        not debezium.is_available(), reason="no Java, or neither Debezium's jars nor Maven: it can't run"
    ),
]
CUPS, EVENTS = 20, 300
DROP_SLOT = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'cups'"


class Filled(Event, topic="debezium-cups", type="cup.filled", key="cup"):
    cup: UUID
    n: int


async def append(db: Database, cups: list[UUID], numbers: range) -> None:
    for start in range(numbers.start, numbers.stop, 50):
        async with db.transaction() as tx:
            with use(TraceContext.new()):
                events = [Filled(cup=cups[n % CUPS], n=n) for n in range(start, min(start + 50, numbers.stop))]
                await Outbox(db).append(tx, *events)


def consumer_of(db: Database, broker: KafkaBroker, seen: list[tuple[UUID, UUID, int]]) -> Consumer:
    consumer = Consumer(f"cups-{uuid4().hex[:8]}", db=db, broker=broker)

    @consumer.on(Filled, locks=SHARED)
    async def filled(event: Filled, tx: Transaction, envelope: Envelope) -> None:
        tx.after_commit(lambda: seen.append((envelope.id, event.cup, event.n)))

    return consumer


async def test_debezium_reads_our_table(kafka: Any, logical: Cluster, tmp_path: Path) -> None:
    """Rows from before and after its start reach our unchanged consumer: each once, by its id, in order per key."""
    if kafka.flavor == "embedded":
        pytest.skip("Kafka Connect needs Apache Kafka")
    await asyncio.to_thread(debezium.fetch)
    logical.create_databases({"cups": "secret"})
    broker = KafkaBroker(kafka.bootstrap)
    await broker.create_topics({"debezium-cups": 3})
    db, seen = Database("cups", dsn=logical.dsn("cups", "cups", "secret")), list[tuple[UUID, UUID, int]]()
    Outbox(db)
    consumer, cups = consumer_of(db, broker, seen), [uuid4() for _ in range(CUPS)]
    async with db, Database("admin", dsn=logical.dsn("cups")) as admin:
        await admin.execute("CREATE PUBLICATION backstay_outbox FOR TABLE outbox WITH (publish = 'insert')")
        await append(db, cups, range(100))
        program = debezium.program(
            tmp_path / "connect", kafka=kafka.bootstrap, dsn=logical.dsn("cups"), slot="cups", memory="384m"
        )
        process = spawn(program)
        try:
            async with consumer:
                await eventually(lambda: len(seen) >= 100, timeout=240)
                await append(db, cups, range(100, EVENTS))
                await eventually(lambda: len(seen) >= EVENTS, timeout=120)
                statistics = consumer.statistics()
        finally:
            await asyncio.to_thread(stop, process, program)
        written = {str(row["id"]) for row in await db.fetch("SELECT id FROM outbox")}
    await broker.aclose()
    await eventually(lambda: logical.run_sql(DROP_SLOT) is not None, timeout=60)
    await asyncio.to_thread(logical.drop_databases, ["cups"])

    assert {str(ident) for ident, _, _ in seen} == written
    assert (statistics.handled, statistics.dead_letters, statistics.skipped) == (EVENTS, 0, 0)
    for cup in cups:
        numbers = [n for _, other, n in seen if other == cup]
        assert numbers == sorted(numbers)
        assert len(numbers) == EVENTS // CUPS
