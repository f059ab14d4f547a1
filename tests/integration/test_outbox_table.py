"""Outbox tables of somebody else's on a real PostgreSQL, with a broker in memory: our relay in Debezium's place."""

import json
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from backstay.db import Database
from backstay.errors import ConfigError
from backstay.messaging import MemoryBroker, PublishError
from backstay.outbox import DEBEZIUM, QUARKUS, Outbox, OutboxError, OutboxTable, read_status, replay, resume, skip
from backstay.testing import armed, eventually

FAST: dict[str, float] = {"lease": 1.0, "gather": 0.01, "max_idle": 0.02}
# As the Quarkus extension and Debezium's documentation have them.
QUARKUS_TABLE = """
CREATE TABLE OutboxEvent (
    id uuid NOT NULL PRIMARY KEY, aggregatetype varchar(255) NOT NULL, aggregateid varchar(255) NOT NULL,
    type varchar(255) NOT NULL, timestamp timestamp NOT NULL, payload varchar(8000), tracingspancontext varchar(256)
)"""
DEBEZIUM_TABLE = """
CREATE TABLE outboxevent (
    id uuid NOT NULL PRIMARY KEY, aggregatetype varchar(255) NOT NULL, aggregateid varchar(255) NOT NULL,
    type varchar(255) NOT NULL, payload jsonb
)"""
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    opened = Database("java", dsn=database)
    Outbox(opened)
    async with opened:
        yield opened


async def prepare(db: Database, ddl: str, table: OutboxTable) -> None:
    for statement in [ddl, *table.migration.split(";\n")]:
        await db.execute(statement)


async def insert(db: Database, key: str, payload: str, kind: str = "OrderCreated") -> UUID:
    """What Hibernate writes: it knows nothing of the columns that were added."""
    ident = uuid4()
    await db.execute(
        "INSERT INTO outboxevent (id, aggregatetype, aggregateid, type, timestamp, payload, tracingspancontext)"
        " VALUES ($1, 'Order', $2, $3, now() AT TIME ZONE 'UTC', $4, $5)",
        ident,
        key,
        kind,
        payload,
        f"#a comment\ntraceparent={TRACE}\n",
    )
    return ident


async def drained(db: Database) -> bool:
    return not await db.fetchval("SELECT EXISTS (SELECT FROM outboxevent)")


async def test_quarkus(db: Database) -> None:
    """What Quarkus writes goes out as Debezium's router would send it: topic, key, value and the header `id`."""
    await prepare(db, QUARKUS_TABLE, QUARKUS)
    broker = MemoryBroker()
    idents = [await insert(db, "o-1", '{"n": 1}'), await insert(db, "o-1", '{"n":2}')]
    async with Outbox(db).relay(broker, table=QUARKUS, **FAST) as relay:
        await eventually(lambda: drained(db), timeout=30)
        assert relay.problem is None
        assert 0 <= relay.statistics().commit_to_ack.total < 120

    records = broker.records("outbox.event.Order")
    assert [record.value for record in records] == [b'{"n": 1}', b'{"n":2}']
    assert {record.key for record in records} == {b"o-1"}
    assert [dict(record.headers) for record in records] == [
        {"id": str(ident).encode(), "traceparent": TRACE.encode()} for ident in idents
    ]


async def test_debezium_with_placed_columns(db: Database) -> None:
    """Columns are placed in headers, the topic follows the route, and CloudEvents headers come when asked for."""
    table = OutboxTable(route="${routedByValue}.events", headers={"type": "eventType"}, cloudevents=True)
    await prepare(db, DEBEZIUM_TABLE, table)
    ident = uuid4()
    await db.execute("INSERT INTO outboxevent VALUES ($1, 'order', 'o-1', 'created', '{\"n\": 1}')", ident)
    broker = MemoryBroker()
    async with Outbox(db, source="/java").relay(broker, table=table, **FAST):
        await eventually(lambda: drained(db), timeout=30)

    [record] = broker.records("order.events")
    headers = dict(record.headers)
    assert json.loads(record.value or b"") == {"n": 1}
    assert headers["eventType"] == headers["ce_type"] == b"created"
    assert (headers["ce_id"], headers["ce_source"], headers["ce_subject"]) == (str(ident).encode(), b"/java", b"o-1")
    assert "ce_time" not in headers


async def test_a_backlog_in_order(db: Database) -> None:
    """Rows go out in the order of their inserts per key, in few statements, also those from before the migration."""
    await db.execute(DEBEZIUM_TABLE)
    fill = (
        "INSERT INTO outboxevent SELECT gen_random_uuid(), 'order', 'o-' || n % 50, 'moved', to_jsonb(n)"
        " FROM generate_series($1::int, $2::int) AS n"
    )
    await db.execute(fill, 0, 2999)
    for statement in DEBEZIUM.migration.split(";\n"):
        await db.execute(statement)
    await db.execute(fill, 3000, 5999)
    broker = MemoryBroker()
    async with Outbox(db).relay(broker, table=DEBEZIUM, **FAST) as relay:
        await eventually(lambda: drained(db), timeout=60)
        statistics = relay.statistics()

    records = broker.records("outbox.event.order")
    numbers = {key: [int(r.value or b"") for r in records if r.key == key] for key in {r.key for r in records}}
    assert sum(map(len, numbers.values())) == 6000
    assert all(some == sorted(some) for some in numbers.values())
    assert statistics.reads + statistics.deletes < 200


async def test_parking(db: Database) -> None:
    """Rows of a parked key stay in the table, in order; an operator resumes, skips or mends them."""
    await prepare(db, QUARKUS_TABLE, QUARKUS)
    broker, topic = MemoryBroker(), "outbox.event.Order"
    broker.refuse = lambda record: PublishError("record", "bad") if b"poison" in (record.value or b"") else None
    await insert(db, "bad", '"poison"')
    await insert(db, "bad", '"after"')
    await insert(db, "worse", '"poison"')
    await insert(db, "good", '"fine"')
    async with Outbox(db).relay(broker, table=QUARKUS, **FAST) as relay:
        await eventually(lambda: relay.statistics().parked == 2, timeout=30)
        await eventually(lambda: broker.records(topic), timeout=30)
        status = await read_status(db, table=QUARKUS)
        assert [(one.key, one.rows) for one in sorted(status.parked, key=lambda one: one.key)] == [
            ("bad", 2),
            ("worse", 1),
        ]
        assert status.topics == {topic: 3}
        await skip(db, topic, "worse", table=QUARKUS)
        await replay(db, topic, "bad", '"mended"', table=QUARKUS)
        await eventually(lambda: drained(db), timeout=30)
        with pytest.raises(OutboxError):
            await resume(db, topic, "bad")

    values = {
        record.key: [r.value for r in broker.records(topic) if r.key == record.key] for record in broker.records(topic)
    }
    assert values == {b"good": [b'"fine"'], b"bad": [b'"mended"', b'"after"']}
    assert (
        await db.fetchval("SELECT original ->> 'payload' FROM outbox_parked WHERE skipped_at IS NOT NULL") == '"poison"'
    )


async def test_strict_mode(db: Database) -> None:
    """A table of somebody else's can be published by transactions too: a death before the delete doubles nothing."""
    await prepare(db, QUARKUS_TABLE, QUARKUS)
    broker = MemoryBroker()
    idents = [await insert(db, f"o-{n % 5}", f'"{n}"') for n in range(40)]
    with armed("outbox.relay.before-delete=error*2"):
        async with Outbox(db).relay(broker, table=QUARKUS, strict=True, **FAST) as relay:
            await eventually(lambda: drained(db), timeout=60)
            assert relay.statistics().recovered > 0

    found = [record.header("id") for record in broker.records("outbox.event.Order")]
    assert sorted(found) == sorted(str(ident).encode() for ident in idents)


async def test_the_log_is_for_our_own_table(db: Database) -> None:
    """What can't be combined is refused with the reason."""
    with pytest.raises(ConfigError, match="leave out wal="):
        Outbox(db).relay(MemoryBroker(), table=QUARKUS, wal=True)


async def test_a_table_without_the_columns_is_refused(db: Database) -> None:
    """What is missing is named at the start, with the statements that add it."""
    with pytest.raises(ConfigError, match="no such table"):
        await Outbox(db).relay(MemoryBroker(), table=QUARKUS).__aenter__()
    await db.execute(DEBEZIUM_TABLE)
    with pytest.raises(ConfigError) as caught:
        await Outbox(db).relay(MemoryBroker(), table=QUARKUS).__aenter__()

    assert "no column 'timestamp'" in str(caught.value)
    assert 'ALTER TABLE "outboxevent"\n    ADD COLUMN "seq" bigint GENERATED BY DEFAULT AS IDENTITY' in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"route": "fixed"}, "must hold {} once"),
        ({"route": "{}.{}"}, "must hold {} once"),
        ({"table": "a.b.c"}, "plain SQL name"),
        ({"key": 'x"; DROP TABLE y'}, "plain SQL name"),
        ({"headers": {"type": "id"}}, "itself sets"),
        ({"headers": {"type": "a", "region": "a"}}, "same header"),
        ({"headers": {"type": "ce_type"}, "cloudevents": True}, "itself sets"),
    ],
)
def test_a_wrong_table_is_refused(options: dict[str, object], problem: str) -> None:
    """A configuration that can't work is refused when it is made, naming the value."""
    with pytest.raises(ConfigError, match=problem):
        OutboxTable(**options)  # type: ignore[arg-type]
