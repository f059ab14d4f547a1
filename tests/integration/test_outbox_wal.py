"""The WAL relay on a real PostgreSQL with logical replication, and a broker in memory."""

import asyncio
import json
import os
import random
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from backstay.db import Database, Unavailable
from backstay.dev import Kafka, Postgres
from backstay.dev.postgres import Cluster
from backstay.errors import ConfigError
from backstay.messaging import Event, KafkaBroker, MemoryBroker, PublishError, Record
from backstay.outbox import Outbox, OutboxError, Relay, WalOptions, empty_at_once, list_parked, resume
from backstay.outbox.store import SHARDS
from backstay.outbox.wal.feed import Feed
from backstay.outbox.wal.replication import SlotTaken, Stream
from backstay.outbox.wal.shards import shard_of
from backstay.testing import armed, eventually

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("wal")]
FAST: dict[str, float] = {"lease": 1.0, "gather": 0.01, "max_idle": 0.02}
WAIT = 40.0
KILLED_LAST = "outbox.relay.after-publish=kill@5"
PROCESS = Path(__file__).with_name("wal_relay_process.py")
_databases = count(1)


class Brewed(Event, topic="brews", type="brew.done", key="order_id"):
    order_id: UUID
    n: int = 0


@pytest.fixture
async def db(logical: Cluster) -> AsyncIterator[Database]:
    """A database whose owner may replicate."""
    name = f"wal_{next(_databases)}"
    logical.create_databases({name: "secret"})
    logical.run_sql(f"ALTER ROLE {name} REPLICATION")
    opened = Database(name, dsn=logical.dsn(name, name, "secret"))
    Outbox(opened)
    async with opened:
        yield opened
    await eventually(lambda: logical.run_sql(DROP_SLOTS.format(name=name)) is not None, timeout=WAIT)
    logical.drop_databases([name])


DROP_SLOTS = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{name}'"


@pytest.fixture
def box(db: Database) -> Outbox:
    return Outbox(db)


@pytest.fixture(params=["kept", "emptied"])
async def mode(request: pytest.FixtureRequest, db: Database) -> str:
    """Rows stay until they are published, or leave with the transaction that wrote them."""
    if request.param == "emptied":
        await empty_at_once(db)
    return str(request.param)


def relay_of(box: Outbox, broker: MemoryBroker, *, name: str = "one", wal: WalOptions | None = None) -> Relay:
    return box.relay(broker, name=name, wal=wal or WalOptions(retry=0.1, confirm_interval=0.1), **FAST)


async def append(db: Database, box: Outbox, key: UUID, *numbers: int) -> None:
    async with db.transaction() as tx:
        await box.append(tx, *(Brewed(order_id=key, n=n) for n in numbers))


def numbers(broker: MemoryBroker) -> list[int]:
    return [json.loads(record.value or b"")["n"] for record in broker.records("brews")]


def first_occurrences(broker: MemoryBroker) -> dict[bytes, list[int]]:
    seen: dict[bytes, list[int]] = defaultdict(list)
    for record in broker.records("brews"):
        n = json.loads(record.value or b"")["n"]
        if n not in seen[record.key or b""]:
            seen[record.key or b""].append(n)
    return seen


async def pending(db: Database) -> int:
    found: int = await db.fetchval("SELECT count(*) FROM outbox")
    return found


async def streams(db: Database, relay: Relay) -> bool:
    """All shards are read from the log."""
    session = relay._cycle._session  # type: ignore[attr-defined]
    return len(session._feed.streamed) == SHARDS


async def confirmed(db: Database) -> str:
    query = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = $1"
    return str(await db.fetchval(query, db.name) or "")


async def test_shards_are_the_databases(db: Database) -> None:
    """A key's shard is what the database computes, whatever its length and letters."""
    chance = random.Random(3)
    keys = ["".join(chance.choice("aé€😀-7") for _ in range(chance.randint(1, 60))) for _ in range(500)]
    keys += [str(uuid4()) for _ in range(500)] + ["x" * n for n in range(1, 50)]
    rows = await db.fetch("SELECT (hashtextextended(k, 0) & 63)::int AS shard FROM unnest($1::text[]) AS k", keys)

    assert [shard_of(key) for key in keys] == [row["shard"] for row in rows]


async def test_streams_what_is_committed(db: Database, box: Outbox, mode: str) -> None:
    """Committed events come out in order, those of a rollback never, and the slot forgets what was acknowledged."""
    broker, key = MemoryBroker(), uuid4()
    async with relay_of(box, broker) as relay:
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as tx:
                await box.append(tx, Brewed(order_id=key, n=99))
                raise ZeroDivisionError
        before = await confirmed(db)
        await append(db, box, key, 1, 2, 3)
        await append(db, box, key, 4)
        await eventually(lambda: len(numbers(broker)) >= 4, timeout=WAIT)
        assert await streams(db, relay)
        await eventually(lambda: _is_zero(pending(db)), timeout=WAIT)
        await eventually(lambda: _differs(confirmed(db), before), timeout=WAIT)

    assert numbers(broker) == [1, 2, 3, 4]


async def _is_zero(value: object) -> bool:
    return await value == 0  # type: ignore[misc]


async def _differs(value: object, other: object) -> bool:
    return await value != other  # type: ignore[misc]


async def test_what_waited_comes_first(db: Database, box: Outbox, mode: str) -> None:
    """Events of before the start are published in order with those of after it."""
    broker, keys = MemoryBroker(), [uuid4() for _ in range(20)]
    async with relay_of(box, broker):
        await eventually(lambda: confirmed(db), timeout=WAIT)
    for n in range(300):
        await append(db, box, keys[n % 20], n)
    async with relay_of(box, broker) as relay:
        for n in range(300, 600):
            await append(db, box, keys[n % 20], n)
        await eventually(lambda: len(set(numbers(broker))) == 600, timeout=WAIT)
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        await eventually(lambda: _is_zero(pending(db)), timeout=WAIT)

    assert first_occurrences(broker) == {str(key).encode(): list(range(n, 600, 20)) for n, key in enumerate(keys)}
    assert len(numbers(broker)) == 600


async def test_order_across_concurrent_writers(db: Database, box: Outbox, mode: str) -> None:
    """Keys shared by writers keep the order of their commits, while shards go over from the table to the log."""
    broker, chance = MemoryBroker(), random.Random(7)
    keys = [uuid4() for _ in range(8)]
    locks = {key: asyncio.Lock() for key in keys}
    written: dict[bytes, list[int]] = defaultdict(list)
    number = count()

    async def write() -> None:
        for _ in range(150):
            key = chance.choice(keys)
            async with locks[key], db.transaction() as tx:
                some = [next(number) for _ in range(chance.randint(1, 4))]
                await box.append(tx, *(Brewed(order_id=key, n=n) for n in some))
                await asyncio.sleep(chance.random() * 0.003)
                written[str(key).encode()] += some

    async with relay_of(box, broker) as relay:
        await asyncio.gather(*(write() for _ in range(5)))
        await eventually(lambda: len(numbers(broker)) == sum(map(len, written.values())), timeout=WAIT)
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        await eventually(lambda: _is_zero(pending(db)), timeout=WAIT)

    assert first_occurrences(broker) == written


async def test_killed_between_acknowledgement_and_confirmation(db: Database, box: Outbox, mode: str) -> None:
    """What the broker has and the server doesn't know about comes again; nothing is lost, no order is turned round."""
    broker, keys = MemoryBroker(), [uuid4() for _ in range(5)]
    with armed("outbox.wal.before-confirm=error*6,outbox.relay.before-delete=error*3"):
        async with relay_of(box, broker):
            for n in range(200):
                await append(db, box, keys[n % 5], n)
            await eventually(lambda: len(set(numbers(broker))) == 200, timeout=WAIT)
            await eventually(lambda: _is_zero(pending(db)), timeout=WAIT)

    assert first_occurrences(broker) == {str(key).encode(): list(range(n, 200, 5)) for n, key in enumerate(keys)}


async def test_standby_takes_over(db: Database, box: Outbox, mode: str) -> None:
    """One relay reads the slot and has all shards; when it goes the other has them, and goes on in order."""
    broker, key = MemoryBroker(), uuid4()
    first, second = relay_of(box, broker, name="first"), relay_of(box, broker, name="second")
    async with second:
        async with first:
            await eventually(lambda: {len(one._cycle.leases) for one in (first, second)} == {0, SHARDS}, timeout=WAIT)
            await append(db, box, key, *range(10))
            await eventually(lambda: len(numbers(broker)) == 10, timeout=WAIT)
        await append(db, box, key, *range(10, 20))
        await eventually(lambda: len(set(numbers(broker))) == 20, timeout=WAIT)
        await eventually(lambda: len(second._cycle.leases) == SHARDS, timeout=WAIT)
        await eventually(lambda: streams(db, second), timeout=WAIT)

    assert first_occurrences(broker) == {str(key).encode(): list(range(20))}


async def test_a_taken_slot_leaves_nothing_behind(db: Database, box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds the slot taken listens to its connection no more: the number of its socket is another's soon."""
    sockets: list[int] = []
    listen = Stream._listen

    def listening(stream: Stream) -> None:
        sockets.append(stream._socket)
        listen(stream)

    async with relay_of(box, MemoryBroker()) as relay:
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        store = relay._store  # type: ignore[attr-defined]
        monkeypatch.setattr(Stream, "_listen", listening)
        with pytest.raises(SlotTaken):
            async with store._attach(Feed(spills=False, max_rows=1, max_bytes=1)):
                pass

    assert len(sockets) == 1
    assert not asyncio.get_running_loop().remove_reader(sockets[0])


async def test_poison_parks_its_key(db: Database, box: Outbox, mode: str) -> None:
    """A record that is refused for good parks its key, with its successors; the rest flows, and the slot moves on."""
    broker, bad, good = MemoryBroker(), uuid4(), uuid4()

    def refuse(record: Record) -> PublishError | None:
        return PublishError("record", "too large") if record.key == str(bad).encode() else None

    broker.refuse = refuse
    async with relay_of(box, broker) as relay:
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        async with db.transaction() as tx:
            await box.append(tx, *(Brewed(order_id=key, n=n) for n in range(3) for key in (bad, good)))
        await eventually(lambda: _length(list_parked(db)), timeout=WAIT)
        before = await confirmed(db)
        await append(db, box, bad, 3)
        await append(db, box, good, 3)
        await eventually(lambda: numbers(broker) == [0, 1, 2, 3], timeout=WAIT)
        await eventually(lambda: _differs(confirmed(db), before), timeout=WAIT)
        broker.refuse = lambda _record: None
        await resume(db, "brews", str(bad))
        await append(db, box, bad, 4)
        await eventually(lambda: len(numbers(broker)) == 9, timeout=WAIT)
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        await eventually(lambda: _is_zero(pending(db)), timeout=WAIT)

    assert first_occurrences(broker)[str(bad).encode()] == [0, 1, 2, 3, 4]


async def _length(value: object) -> int:
    return len(await value)  # type: ignore[misc]


async def test_missing_topic_waits_alone(db: Database, box: Outbox, mode: str) -> None:
    """Events of a topic that can't be published to lie in the table; others flow, and the slot moves on."""
    broker, key = MemoryBroker(), uuid4()

    def missing(record: Record) -> PublishError | None:
        return PublishError("retriable", "no such topic") if record.topic == "lost" else None

    broker.refuse = missing
    async with relay_of(box, broker) as relay:
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        for n in range(5):
            await db.execute(
                "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)"
                " VALUES (gen_random_uuid(), 'lost', 'k', 'x', '{}')"
            )
            await append(db, box, key, n)
        await eventually(lambda: numbers(broker) == [0, 1, 2, 3, 4], timeout=WAIT)
        await eventually(lambda: _equals(pending(db), 5), timeout=WAIT)
        broker.refuse = lambda _record: None
        await eventually(lambda: len(broker.records("lost")) == 5, timeout=WAIT)
        await eventually(lambda: streams(db, relay), timeout=WAIT)


async def _equals(value: object, other: object) -> bool:
    return await value == other  # type: ignore[misc]


async def test_one_large_transaction(db: Database, box: Outbox, mode: str) -> None:
    """A transaction far larger than the buffer comes through whole and in order."""
    broker, keys = MemoryBroker(), [str(uuid4()) for _ in range(10)]
    wal = WalOptions(buffer_rows=500, retry=0.1, confirm_interval=0.1)
    async with relay_of(box, broker, wal=wal) as relay:
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        await db.execute(
            "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)"
            " SELECT gen_random_uuid(), 'brews', ($1::text[])[1 + n % 10], 'brew.done', jsonb_build_object('n', n)"
            " FROM generate_series(0, 19999) AS n ORDER BY n",
            keys,
        )
        await eventually(lambda: len(numbers(broker)) == 20_000, timeout=WAIT)
        await eventually(lambda: _is_zero(pending(db)), timeout=WAIT)

    assert first_occurrences(broker) == {key.encode(): list(range(n, 20_000, 10)) for n, key in enumerate(keys)}


async def test_falls_back_and_returns(db: Database, box: Outbox, logical: Cluster) -> None:
    """Without its slot the relay polls; it makes the slot anew, and reads it again. Nothing is lost or turned round."""
    broker, key = MemoryBroker(), uuid4()
    async with relay_of(box, broker) as relay:
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        for n in range(100):
            if n % 25 == 10:
                logical.run_sql(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active;"
                    f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                    f" WHERE database = '{db.name}' AND NOT active"
                )
            await append(db, box, key, n)
        await eventually(lambda: len(set(numbers(broker))) == 100, timeout=WAIT)
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        await eventually(lambda: _is_zero(pending(db)), timeout=WAIT)

    assert first_occurrences(broker) == {str(key).encode(): list(range(100))}


async def test_guard_gives_the_slot_up(db: Database, box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows lie in the table: a slot for which too much is kept goes, polling carries on, and a new slot comes."""
    monkeypatch.setattr("backstay.outbox.cycle.GAUGE_INTERVAL", 0.1)
    broker, key = MemoryBroker(), uuid4()
    wal = WalOptions(max_retained_bytes=1_000_000, retry=0.1, confirm_interval=0.1)
    async with relay_of(box, broker, wal=wal) as relay:
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        async with db.transaction() as other:
            await other.execute("CREATE TABLE noise AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
            await eventually(lambda: _equals(_slots(db), 0), timeout=WAIT)
            await append(db, box, key, 1)
            await eventually(lambda: numbers(broker) == [1], timeout=WAIT)
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        await append(db, box, key, 2)
        await eventually(lambda: numbers(broker) == [1, 2], timeout=WAIT)


async def _slots(db: Database) -> int:
    found: int = await db.fetchval("SELECT count(*) FROM pg_replication_slots WHERE database = $1", db.name)
    return found


async def test_guard_refuses_events(db: Database, box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are in the log only: the slot stays, new events are refused until less is kept for it."""
    monkeypatch.setattr("backstay.outbox.cycle.GAUGE_INTERVAL", 0.1)
    broker, key = MemoryBroker(), uuid4()
    wal = WalOptions(max_retained_bytes=1_000_000, retry=0.1, confirm_interval=0.1)
    await empty_at_once(db)
    async with relay_of(box, broker, wal=wal) as relay:
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        async with db.transaction() as other:
            await other.execute("CREATE TABLE noise AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
            await eventually(lambda: "bytes of WAL" in (relay.problem or ""), timeout=WAIT)
            with pytest.raises(Unavailable, match="takes no events: the server keeps"):
                await append(db, box, key, 1)
        await eventually(lambda: _appended(db, box, key), timeout=WAIT)
        await eventually(lambda: numbers(broker) == [2], timeout=WAIT)
        assert await _slots(db) == 1
        assert relay.problem is None


async def _appended(db: Database, box: Outbox, key: UUID) -> bool:
    await append(db, box, key, 2)
    return True


async def test_lost_slot_of_an_emptied_table(db: Database, box: Outbox) -> None:
    """Events may be lost with the slot, so none is made in silence: the relay says so, and takes no more events."""
    await empty_at_once(db)
    await db.execute(DROP_SLOTS.format(name=db.name))
    async with relay_of(box, MemoryBroker()) as relay:
        await eventually(lambda: _refused(db, box), timeout=WAIT)
        await eventually(lambda: "is not there" in (relay.problem or ""), timeout=WAIT)
        assert await _slots(db) == 0


async def _refused(db: Database, box: Outbox) -> bool:
    try:
        await append(db, box, uuid4(), 1)
    except Unavailable as error:
        return "takes no events: replication slot" in str(error) and "is not there" in str(error)
    return False


async def test_slot_moves_on_in_an_idle_database(db: Database, box: Outbox, logical: Cluster) -> None:
    """While only neighbours write, the server needn't keep their log for us."""
    async with relay_of(box, MemoryBroker()) as relay:
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        before = await confirmed(db)
        logical.run_sql("CREATE TABLE IF NOT EXISTS neighbour AS SELECT 1; INSERT INTO neighbour SELECT 2")
        await eventually(lambda: _differs(confirmed(db), before), timeout=WAIT)


async def test_delayed_events_wait(db: Database, box: Outbox, mode: str) -> None:
    """An event that isn't due yet waits in the table, others of its shard don't wait for it."""
    broker = MemoryBroker()
    insert = (
        "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, available_at)"
        " VALUES (gen_random_uuid(), 'brews', 'k', 'brew.done', '{\"n\": 1}', now() + make_interval(secs => $1))"
    )
    async with relay_of(box, broker) as relay:
        await eventually(lambda: streams(db, relay), timeout=WAIT)
        await db.execute(insert, 1.0)
        await db.execute(insert.replace('"n": 1', '"n": 2'), 0.0)
        await eventually(lambda: numbers(broker) == [2, 1], timeout=WAIT)


async def test_a_storm(db: Database, box: Outbox, mode: str, logical: Cluster) -> None:
    """Relays come and go, the broker refuses, connections are cut, keys are parked: all comes, in order per key."""
    broker, chance, number = MemoryBroker(), random.Random(int(os.environ.get("SEED", "11"))), count()
    keys = [uuid4() for _ in range(12)]
    bad = {str(keys[0]).encode()}
    locks = {key: asyncio.Lock() for key in keys}
    written: dict[bytes, list[int]] = defaultdict(list)
    trouble = {"retriable": 0.02, "record": 0.0}

    def refuse(record: Record) -> PublishError | None:
        if record.key in bad:
            return PublishError("record", "too large")
        return PublishError("retriable", "not now") if chance.random() < trouble["retriable"] else None

    async def write() -> None:
        for _ in range(400):
            key = chance.choice(keys)
            async with locks[key]:
                some = [next(number) for _ in range(chance.randint(1, 3))]
                if await _committed(db, box, key, some, rolled_back=chance.random() < 0.1):
                    written[str(key).encode()] += some
            await asyncio.sleep(chance.random() * 0.02)

    async def cut() -> None:
        for n in range(8):
            await asyncio.sleep(chance.random() * 0.7)
            sql = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL"
            await asyncio.to_thread(logical.run_sql, f"{sql} AND database = '{db.name}'")
            if n == 5:
                bad.clear()
            for parked in await list_parked(db):
                with suppress(OutboxError):
                    await resume(db, parked.topic, parked.key)

    async def relays() -> None:
        for n in range(4):
            async with relay_of(box, broker, name=f"relay-{n}"):
                await asyncio.sleep(0.5 + chance.random())

    broker.refuse = refuse
    async with relay_of(box, broker, name="steady"):
        await asyncio.gather(write(), write(), write(), cut(), relays())
        bad.clear()
        trouble["retriable"] = 0.0
        await eventually(lambda: _resumed(db), timeout=WAIT)
        await eventually(lambda: len(set(numbers(broker))) == sum(map(len, written.values())), timeout=WAIT)
        await eventually(lambda: _is_zero(pending(db)), timeout=WAIT)

    assert first_occurrences(broker) == written


async def _committed(db: Database, box: Outbox, key: UUID, some: list[int], *, rolled_back: bool) -> bool:
    with suppress(ZeroDivisionError):
        async with db.transaction() as tx:
            await box.append(tx, *(Brewed(order_id=key, n=n) for n in some))
            if rolled_back:
                raise ZeroDivisionError
        return True
    return False


async def _resumed(db: Database) -> bool:
    """Every parked key was let go; there are none left."""
    parked = await list_parked(db)
    for one in parked:
        with suppress(OutboxError):
            await resume(db, one.topic, one.key)
    return not parked


@pytest.mark.kafka
async def test_killed_processes_and_a_real_broker(db: Database, box: Outbox, mode: str, kafka: Kafka) -> None:
    """Relays killed between the broker's answer and what they do with it: all comes, in order, through the next."""
    broker = KafkaBroker(kafka.bootstrap, flavor=kafka.flavor)
    await broker.create_topics({"brews": 6})
    keys = [uuid4() for _ in range(20)]
    command = [sys.executable, str(PROCESS), db.name, db.dsn, kafka.bootstrap, kafka.flavor]
    points = (
        "outbox.wal.before-confirm=kill@9",
        "outbox.relay.before-delete=kill@3",
        "outbox.relay.after-publish=kill@5",
    )
    number = count()
    for point in points:
        relay = await asyncio.create_subprocess_exec(*command, env={**os.environ, "FAULTS": point})
        try:
            async with asyncio.timeout(60):
                while relay.returncode is None:
                    await append(db, box, keys[(n := next(number)) % 20], n)
                    await asyncio.sleep(0.005)
        finally:
            if relay.returncode is None:
                relay.kill()
            await relay.wait()
    written = next(number)
    async with box.relay(broker, wal=WalOptions(retry=0.1), lease=1.0):
        seen = await _tail(broker, {str(key).encode() for key in keys}, written)
        await eventually(lambda: _is_zero(pending(db)), timeout=WAIT)

    assert seen == {str(key).encode(): list(range(n, written, 20)) for n, key in enumerate(keys)}


async def _tail(broker: KafkaBroker, keys: set[bytes], events: int) -> dict[bytes, list[int]]:
    """First occurrences of these keys, once so many events were seen."""
    seen: dict[bytes, dict[int, None]] = defaultdict(dict)
    async with asyncio.timeout(60), aclosing(broker.tail("brews", datetime.fromtimestamp(0, UTC))) as tail:
        async for record in tail:
            if record.key in keys:
                seen[record.key][json.loads(record.value or b"")["n"]] = None
            if sum(map(len, seen.values())) == events:
                break
    return {key: list(numbers) for key, numbers in seen.items()}


async def test_names_what_is_missing(postgres: Postgres, database: str) -> None:
    """The wrong wal_level is an error at the start that names the setting and what is allowed."""
    plain = Database("plain", dsn=database)
    box = Outbox(plain)
    async with plain:
        with pytest.raises(ConfigError, match="wal_level='replica': the WAL relay needs 'logical'"):
            async with box.relay(MemoryBroker(), wal=True):
                pass


async def test_names_the_missing_right(db: Database, box: Outbox, logical: Cluster) -> None:
    """A role that may not replicate is an error at the start that says how to allow it."""
    logical.run_sql(f"ALTER ROLE {db.name} NOREPLICATION")
    with pytest.raises(ConfigError, match=f"ALTER ROLE {db.name} REPLICATION"):
        async with box.relay(MemoryBroker(), wal=True):
            pass
