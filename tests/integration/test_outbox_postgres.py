"""The outbox on a real PostgreSQL, with a broker in memory."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

from backstay.db import Database, Unavailable
from backstay.messaging import Event, MemoryBroker, PublishError, Record
from backstay.outbox import Outbox, OutboxRows, PostgresStore, Relay, RelayOptions, UnusableEvent, append
from backstay.outbox.store import SHARDS, sql
from backstay.telemetry import TraceContext, use
from backstay.testing import armed, eventually

FAST: dict[str, float] = {"lease": 1.0, "gather": 0.01, "max_idle": 0.02}


class Brewed(Event, topic="brews", type="brew.done", key="order_id"):
    order_id: UUID
    n: int = 0


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    opened = Database("coffee", dsn=database)
    Outbox(opened)
    async with opened:
        yield opened


@pytest.fixture
def box(db: Database) -> Outbox:
    return Outbox(db)


async def fill(db: Database, box: Outbox, rows: int, keys: int) -> dict[bytes, list[int]]:
    orders = [uuid4() for _ in range(keys)]
    written: dict[bytes, list[int]] = defaultdict(list)
    for start in range(0, rows, 1000):
        events = [Brewed(order_id=orders[n % keys], n=n) for n in range(start, min(rows, start + 1000))]
        async with db.transaction() as tx:
            await box.append(tx, *events)
        for event in events:
            written[str(event.order_id).encode()].append(event.n)
    return written


def first_occurrences(broker: MemoryBroker) -> dict[bytes, list[int]]:
    seen: dict[bytes, list[int]] = defaultdict(list)
    for record in broker.records("brews"):
        n = json.loads(record.value or b"")["n"]
        if n not in seen[record.key or b""]:
            seen[record.key or b""].append(n)
    return seen


async def pending(db: Database) -> int:
    count: int = await db.fetchval("SELECT count(*) FROM outbox")
    return count


async def test_rollback_publishes_nothing(db: Database, box: Outbox) -> None:
    """An event of a transaction that was rolled back never existed."""
    broker = MemoryBroker()
    async with box.relay(broker, **FAST):
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as tx:
                await box.append(tx, Brewed(order_id=uuid4(), n=1))
                raise ZeroDivisionError
        async with db.transaction() as tx:
            await box.append(tx, Brewed(order_id=uuid4(), n=2))
        await eventually(lambda: broker.records("brews"))

    assert [json.loads(record.value or b"")["n"] for record in broker.records("brews")] == [2]


async def test_row_and_record(db: Database, box: Outbox) -> None:
    """What was appended is what goes out: payload, key, id, source, trace and time."""
    order, broker, trace = uuid4(), MemoryBroker(), TraceContext.new()
    async with db.transaction() as tx:
        with use(trace):
            await box.append(tx, Brewed(order_id=order, n=1), Brewed(order_id=order, n=2), version=7)
    rows = await db.fetch("SELECT * FROM outbox ORDER BY seq")
    async with box.relay(broker, **FAST):
        await eventually(lambda: len(broker.records("brews")) == 2)

    assert [row["aggregateversion"] for row in rows] == [7, None]
    assert [json.loads(row["payload"])["n"] for row in rows] == [1, 2]
    record = broker.records("brews")[0]
    assert record.key == str(order).encode()
    assert json.loads(record.value or b"") == {"order_id": str(order), "n": 1}
    assert record.header("id") == str(rows[0]["id"]).encode()
    assert record.header("ce_source") == b"/service/coffee"
    assert record.header("traceparent") == trace.traceparent.encode()
    assert record.header("ce_time") is not None


async def test_other_writers_need_five_columns(db: Database, box: Outbox) -> None:
    """A writer in any language fills Debezium's columns, and nothing more."""
    broker = MemoryBroker()
    await db.execute(
        "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)"
        " VALUES (gen_random_uuid(), 'brews', 'b-1', 'brew.done', '{\"n\": 5}')"
    )
    async with box.relay(broker, **FAST):
        await eventually(lambda: broker.records("brews"))

    assert broker.records("brews")[0].key == b"b-1"


async def test_append_on_a_foreign_connection(db: Database, database: str) -> None:
    """A plain asyncpg connection appends in its own transaction."""
    connection = await asyncpg.connect(database)
    try:
        with pytest.raises(ZeroDivisionError):
            async with connection.transaction():
                await append(connection, topic="brews", key="k", type="brew.done", payload={"n": 1})
                raise ZeroDivisionError
        async with connection.transaction():
            ident = await append(connection, topic="brews", key="k", type="brew.done", payload={"n": 2})
    finally:
        await connection.close()

    assert [row["id"] for row in await db.fetch("SELECT id FROM outbox")] == [ident]


async def test_rows_in_a_callers_own_statement(db: Database, box: Outbox) -> None:
    """State and events go in one statement, and the guard keeps a repeat from writing events."""
    await db.execute("CREATE TABLE orders (id uuid PRIMARY KEY)")
    order = uuid4()
    statement = f"""
        WITH k AS (INSERT INTO orders VALUES ($1) ON CONFLICT DO NOTHING RETURNING 1),
             x AS ({OutboxRows.insert(2, where="EXISTS (SELECT FROM k)")})
        SELECT count(*) FROM k"""
    for expected in (1, 0):
        async with db.transaction() as tx:
            rows = box.rows(Brewed(order_id=order, n=1), Brewed(order_id=order, n=2))
            assert await tx.fetchval(statement, order, *rows.arguments) == expected
            box.appended(tx)

    assert await pending(db) == 2


async def test_unusable_event_stops_the_transaction(db: Database, box: Outbox) -> None:
    """An event that can't be written is an error before the commit, and nothing of it is saved."""
    with pytest.raises(UnusableEvent, match=r"brew\.done"):
        async with db.transaction() as tx:
            await append(tx, topic="brews", key="", type="brew.done", payload={})
    assert await pending(db) == 0


async def test_backlog(db: Database, box: Outbox) -> None:
    """10,000 rows are drained in order per key, with at most one statement per hundred events."""
    broker = MemoryBroker()
    written = await fill(db, box, 10_000, keys=200)
    async with box.relay(broker) as relay:
        await eventually(lambda: relay.statistics().published >= 10_000, timeout=30)
        await eventually(lambda: drained(db))
        statistics = relay.statistics()

    assert first_occurrences(broker) == written
    assert len(broker.records("brews")) == 10_000
    assert statistics.reads + statistics.deletes <= 100


async def drained(db: Database) -> bool:
    return await pending(db) == 0


async def test_two_relays_one_table(db: Database, box: Outbox, database: str) -> None:
    """Two relays in two processes' stead share the shards fairly, publish each row, and keep the order."""
    broker = MemoryBroker()
    other = Database("coffee-2", dsn=database)
    second = Outbox(other)
    async with other, box.relay(broker, **FAST) as one, second.relay(broker, name="two", **FAST) as two:
        written = await fill(db, box, 1_000, keys=100)
        await eventually(lambda: one.statistics().shards_owned == two.statistics().shards_owned == SHARDS // 2)
        for key, more in (await fill(db, box, 1_000, keys=100)).items():
            written[key] += more
        await eventually(lambda: drained(db))

        assert min(one.statistics().published, two.statistics().published) > 0
        assert [row["shards"] for row in await db.fetch(sql.relays)] == [SHARDS // 2] * 2
    assert first_occurrences(broker) == written
    assert max(Counter(record.header("id") for record in broker.records("brews")).values()) == 1
    assert await db.fetchval("SELECT count(*) FROM outbox_shards WHERE owner IS NOT NULL") == 0
    assert await db.fetchval("SELECT count(*) FROM outbox_relays") == 0


async def test_killed_relay_is_replaced(db: Database, box: Outbox) -> None:
    """A relay that died is replaced after its lease under higher epochs; what it would still delete is refused."""
    broker = MemoryBroker()
    dead = box.relay(broker, **FAST)
    await dead.__aenter__()
    await eventually(lambda: dead.statistics().shards_owned == SHARDS)
    old = dict(await db.fetch("SELECT shard, epoch FROM outbox_shards"))
    assert dead._task is not None
    dead._task.cancel()
    await asyncio.wait({dead._task})
    await fill(db, box, 1, keys=1)
    shard, seq = tuple(await db.fetchrow("SELECT shard, seq FROM outbox") or ())
    broker.cut()

    async with box.relay(broker, name="heir", **FAST) as heir:
        await eventually(lambda: heir.statistics().shards_owned == SHARDS)
        async with PostgresStore(db).open() as session:
            assert await session.delete(dead.id, {shard: [seq]}, {shard: old[shard]}) == frozenset()
            assert await session.delete(heir.id, {shard: [seq]}, {shard: old[shard]}) == frozenset()
        assert await pending(db) == 1
        broker.heal()
        await eventually(lambda: drained(db))

    new = dict(await db.fetch("SELECT shard, epoch FROM outbox_shards"))
    assert all(new[n] > old[n] for n in range(SHARDS))


async def test_order_under_retriable_failures(db: Database, box: Outbox) -> None:
    """Refusals for the moment never let a successor overtake."""
    broker, turn = MemoryBroker(), [0]

    def refuse(_: Record) -> PublishError | None:
        turn[0] += 1
        return PublishError("retriable", "not now") if turn[0] % 37 == 0 and turn[0] < 1000 else None

    broker.refuse = refuse
    written = await fill(db, box, 500, keys=5)
    async with box.relay(broker, **FAST) as relay:
        await eventually(lambda: drained(db), timeout=30)
        assert relay.statistics().failed > 0

    assert first_occurrences(broker) == written


async def test_poison_and_waiting_topic(db: Database, box: Outbox) -> None:
    """A poison record parks its key with its successors, a missing topic waits, and all else flows on."""
    broker = MemoryBroker()
    broker.refuse = lambda record: {
        "brews": PublishError("record", "too large") if record.key == b"bad" else None,
        "gone": PublishError("retriable", "unknown topic"),
    }[record.topic]
    async with db.transaction() as tx:
        for topic, key in (("brews", "bad"), ("gone", "bad"), ("gone", "good"), ("brews", "bad"), ("brews", "good")):
            await append(tx, topic=topic, key=key, type="brew.done", payload={})
    async with box.relay(broker, **FAST) as relay:
        await eventually(lambda: relay.statistics().published == 1)
        await eventually(lambda: relay.statistics().waiting_topics == 1)
        await eventually(lambda: relay.statistics().parked == 1)
        broker.refuse = lambda record: None if record.topic == "gone" else PublishError("record", "too large")
        await eventually(lambda: relay.statistics().published == 3)
        await eventually(lambda: relay.statistics().parked_keys == 1)

    assert await pending(db) == 0
    left = await db.fetch("SELECT aggregatetype, aggregateid FROM outbox_parked ORDER BY seq")
    assert [tuple(row) for row in left] == [("brews", "bad")] * 2
    [key] = await db.fetch("SELECT aggregatetype, aggregateid, reason FROM outbox_parked_keys")
    assert tuple(key) == ("brews", "bad", "too large")


async def test_late_commit(db: Database, box: Outbox) -> None:
    """A transaction that drew its number first and committed last is not passed over."""
    broker = MemoryBroker()
    async with box.relay(broker, **FAST):
        async with db.transaction() as slow:
            await box.append(slow, Brewed(order_id=uuid4(), n=1))
            async with db.transaction() as quick:
                await box.append(quick, Brewed(order_id=uuid4(), n=2))
            await eventually(lambda: len(broker.records("brews")) == 1)
        await eventually(lambda: len(broker.records("brews")) == 2)


async def test_available_at(db: Database, box: Outbox) -> None:
    """A row that isn't available yet waits."""
    broker = MemoryBroker()
    await db.execute(
        "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, available_at)"
        " VALUES (gen_random_uuid(), 'brews', 'b', 'brew.done', '{\"n\": 1}', now() + interval '400 ms'),"
        "        (gen_random_uuid(), 'brews', 'c', 'brew.done', '{\"n\": 2}', NULL)"
    )
    async with box.relay(broker, **FAST):
        await eventually(lambda: len(broker.records("brews")) == 1)
        assert await pending(db) >= 1
        await eventually(lambda: len(broker.records("brews")) == 2)


async def test_lost_connections(db: Database, box: Outbox) -> None:
    """When the database cuts all connections the relay comes back by itself, and nothing is lost."""
    broker = MemoryBroker()
    async with box.relay(broker, **FAST) as relay:
        written = await fill(db, box, 200, keys=10)
        await eventually(lambda: relay.statistics().published)
        with pytest.raises(Unavailable):
            await db.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'coffee'")
        for key, more in (await eventually(lambda: fill(db, box, 200, keys=10))).items():
            written[key] += more
        await eventually(lambda: drained(db))
        await eventually(lambda: relay.problem is None)

    assert first_occurrences(broker) == written


@pytest.mark.parametrize("point", ["before-publish", "after-publish", "before-delete"])
async def test_crash_at_each_point(db: Database, box: Outbox, point: str) -> None:
    """Wherever a relay's life ends, the next one goes on without loss and in order."""
    broker = MemoryBroker()
    written = await fill(db, box, 300, keys=10)
    with armed(f"outbox.relay.{point}=error"):
        async with box.relay(broker, **FAST) as relay:
            await eventually(lambda: relay.statistics().restarts >= 1)
            with armed(""):
                await eventually(lambda: drained(db))

    assert first_occurrences(broker) == written


async def test_plans_fit_a_backlog(db: Database, box: Outbox) -> None:
    """Statistics say the table is empty, as always; still reads and deletes walk the index, shard by shard."""
    await db.execute("ANALYZE outbox")
    await fill(db, box, 5_000, keys=500)
    arrays = "'{" + ",".join(map(str, range(SHARDS))) + "}'"
    read = f"EXECUTE read({arrays}, 2000, 500, '{{}}', '{{}}', '{{}}')"
    delete = f"EXECUTE remove('{{1}}', '{{1}}', '{{1}}', '{{1}}', '{uuid4()}')"
    async with PostgresStore(db).open() as session:
        work = session._work  # type: ignore[attr-defined]
        await work.execute(f"PREPARE read(smallint[], int, int, bigint[], text[], text[]) AS {sql.read}")
        await work.execute(f"PREPARE remove(smallint[], bigint[], smallint[], bigint[], uuid) AS {sql.delete}")
        plans = ["\n".join(row[0] for row in await work.fetch(f"EXPLAIN {one}")) for one in (read, delete)]

    for plan in plans:
        assert "Index Scan using outbox_pkey" in plan
        assert "Seq Scan on outbox" not in plan.replace("outbox_shards", "")
        assert "Sort" not in plan


async def test_backlog_measure(db: Database, box: Outbox) -> None:
    """The backlog is counted over the given shards, with the age of the oldest row."""
    await fill(db, box, 30, keys=30)
    first = await db.fetchval("SELECT min(seq) FROM outbox")  # the first of its shard, whatever the keys are
    await db.execute("UPDATE outbox SET timestamp = now() - interval '1 minute' WHERE seq = $1", first)
    async with PostgresStore(db).open() as session:
        measured = await session.backlog(range(SHARDS))
        assert (await session.backlog([])).pending == 0

    assert measured.pending == 30
    assert 59 < measured.oldest_age < 90


async def test_options_reach_the_relay(box: Outbox) -> None:
    """Options of a relay are given by name."""
    relay = box.relay(lease=3.0)

    assert isinstance(relay, Relay)
    assert relay.options == RelayOptions(lease=3.0)
    assert "lease=3 s" in repr(relay)
