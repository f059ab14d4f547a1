"""Effects happen once, in order, and nothing stops a partition: the consumer on a real database."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from backstay.db import Database, Deadlock, Transaction
from backstay.messaging import (
    SHARED,
    Broker,
    Consumer,
    Envelope,
    Event,
    KafkaBroker,
    Locks,
    MemoryBroker,
    Partition,
    Record,
    list_dead_letters,
    prune_inbox,
    replay,
)
from backstay.messaging.inbox import COMPONENT
from backstay.messaging.partitioner import partition_of
from backstay.telemetry import TraceContext, current
from backstay.testing import armed, eventually

MIGRATION = "CREATE TABLE ledger (seq bigint GENERATED ALWAYS AS IDENTITY, event_id uuid, key text, number int)"
PARTITIONS = 6
BOTH = pytest.mark.parametrize("broker", ["memory", pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)


class World:
    """A database with a ledger, a broker, and a topic of its own."""

    def __init__(self, db: Database, broker: Any) -> None:
        self.db = db
        self.broker = broker
        self.producer = broker.producer()
        self.topic = topic = f"counts-{uuid4().hex[:12]}"

        class Counted(Event, topic=topic, type="count.made", key="key"):
            key: str
            number: int

        self.event: Any = Counted

    def consumer(self, group: str = "g", **options: Any) -> Consumer:
        return Consumer(group, db=self.db, broker=self.broker, **{"retry_wait": 0.01, "replay_every": 0.05} | options)

    async def publish(self, *records: Record) -> None:
        assert await self.producer.publish(records) == [None] * len(records)

    async def count(self, *numbers: int, key: str = "k", ids: Sequence[UUID] = ()) -> None:
        """Publish events with these numbers."""
        given = iter(ids)
        await self.publish(*(self.record(number, key, next(given, None)) for number in numbers))

    def record(self, number: int, key: str = "k", event_id: UUID | None = None, **options: Any) -> Record:
        return self.raw(msgspec.json.encode(self.event(key=key, number=number)), key, event_id, **options)

    def raw(self, data: bytes | None, key: str = "k", event_id: UUID | None = None, **options: Any) -> Record:
        known = {"type": "count.made", "source": "/service/test"} | options
        return Envelope.record_for(topic=self.topic, key=key, id=event_id or uuid4(), data=data, **known)

    async def ledger(self) -> list[int]:
        return [row["number"] for row in await self.db.fetch("SELECT number FROM ledger ORDER BY seq")]


async def write(tx: Transaction, event: Any, envelope: Envelope) -> None:
    await tx.execute(
        "INSERT INTO ledger (event_id, key, number) VALUES ($1, $2, $3)", envelope.id, event.key, event.number
    )


@pytest.fixture
async def broker(request: pytest.FixtureRequest) -> Broker:
    if getattr(request, "param", "memory") == "memory":
        return MemoryBroker()
    kafka = request.getfixturevalue("kafka")
    return KafkaBroker(kafka.bootstrap, flavor=kafka.flavor)


@pytest.fixture
async def world(database: str, broker: Broker, tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "0001_ledger.sql").write_text(MIGRATION)
    db = Database("consumers", dsn=database, migrations=tmp_path)
    db.requires(COMPONENT)
    world = World(db, broker)
    await broker.create_topics({world.topic: PARTITIONS})
    async with db, world.producer:
        yield world


def writing(world: World, consumer: Consumer, **options: Any) -> Consumer:
    @consumer.on(world.event, **options)
    async def _(event: Any, tx: Transaction, envelope: Envelope) -> None:
        await write(tx, event, envelope)

    return consumer


def is_ledger(world: World, *expected: int) -> Any:
    async def check() -> bool:
        return await world.ledger() == list(expected)

    return check


def is_done(consumer: Consumer) -> Any:
    return lambda: not consumer.statistics().lag  # the embedded broker knows none


@BOTH
@pytest.mark.parametrize("options", [{}, {"locks": SHARED}], ids=["alone", "shared"])
async def test_events_of_a_key_are_handled_in_order(world: World, options: dict[str, Any]) -> None:
    """Whether events share transactions or not, their order is the log's."""
    async with writing(world, world.consumer(), **options) as consumer:
        await world.count(*range(250))
        await eventually(is_ledger(world, *range(250)))

        await eventually(is_done(consumer))

    assert consumer.statistics().handled == 250


@BOTH
@pytest.mark.parametrize("options", [{}, {"locks": SHARED}], ids=["alone", "shared"])
async def test_a_repeated_event_has_its_effect_once(world: World, options: dict[str, Any]) -> None:
    """The relay may publish again, in the same batch or later: the inbox knows."""
    ids = [uuid4() for _ in range(3)]
    async with writing(world, world.consumer(), **options) as consumer:
        await world.count(0, 1, 2, 0, 1, ids=[*ids, *ids[:2]])
        await world.count(2, 3, ids=[ids[2], uuid4()])
        await eventually(is_ledger(world, 0, 1, 2, 3))

        assert consumer.statistics().duplicates == 3


async def test_each_group_has_its_own_inbox(world: World) -> None:
    """Two groups in one database both see the effect."""
    async with writing(world, world.consumer("a")), writing(world, world.consumer("b")):
        await world.count(7)
        await eventually(is_ledger(world, 7, 7))


@BOTH
@pytest.mark.parametrize("options", [{}, {"locks": SHARED}], ids=["alone", "shared"])
async def test_a_failing_event_is_parked_and_the_partition_goes_on(world: World, options: dict[str, Any]) -> None:
    """Its neighbours in the batch keep their effects and their order; it is kept with cause, place and attempts."""
    consumer = world.consumer(attempts=3, hold_keys=False)
    tries: list[int] = []

    @consumer.on(world.event, **options)
    async def handle(event: Any, tx: Transaction, envelope: Envelope) -> None:
        await write(tx, event, envelope)
        if event.number in {3, 4, 8}:
            tries.append(event.number)
            raise LookupError(f"no {event.number}\0!")

    await world.count(*range(10))
    async with consumer:
        await eventually(is_ledger(world, 0, 1, 2, 5, 6, 7, 9))
        letters = await list_dead_letters(world.db)

    assert [letter.cause for letter in letters] == [f"LookupError: no {n}\\0!" for n in (3, 4, 8)]
    assert {letter.attempts for letter in letters} == {3}
    assert letters[0].record.value == b'{"key":"k","number":3}'
    assert (letters[0].record.key, letters[0].record.offset, letters[0].type) == (b"k", 3, "count.made")
    assert dict(letters[0].record.headers)["id"] == str(letters[0].event_id).encode()
    assert (consumer.statistics().handled, consumer.statistics().dead_letters) == (7, 3)
    assert sorted(set(tries)) == [3, 4, 8]


@BOTH
async def test_unreadable_records_are_parked_with_their_reason(world: World) -> None:
    """A bad payload, a missing field, a tombstone, no id, no type: kept and passed by."""
    good, consumer = world.record(1, "another"), writing(world, world.consumer(), locks=SHARED)
    await world.publish(
        world.raw(b"not json"),
        world.raw(b'{"key": "k"}'),
        world.raw(None),
        Record(world.topic, b"k", b"{}", (("ce_type", b"count.made"),)),
        Record(world.topic, b"k", b"\xff\x00", (("id", str(uuid4()).encode()), ("x", b"\xfe"))),
        good,
    )
    async with consumer:
        await eventually(is_ledger(world, 1))

    causes = [letter.cause for letter in await list_dead_letters(world.db)]
    assert len(causes) == 5
    for cause, words in zip(
        causes, ["malformed", "`number`", "tombstone", "'id' is missing", "'ce_type'"], strict=True
    ):
        assert words in cause
    assert consumer.statistics().dead_letters == 5


async def test_types_without_a_handler_are_skipped(world: World) -> None:
    """They are counted, and leave no trace in inbox or dead letters, whatever they hold."""
    async with writing(world, world.consumer()) as consumer:
        await world.publish(world.raw(b"??", type="count.unknown"), world.record(1), world.raw(None, type="a.b"))
        await eventually(is_ledger(world, 1))
        await eventually(lambda: consumer.statistics().skipped == 2)

    assert await world.db.fetchval("SELECT count(*) FROM inbox") == 1
    assert await list_dead_letters(world.db) == []


async def test_a_failure_that_passes_costs_nothing_but_retries(world: World) -> None:
    """In-place retries keep the order: the successors wait."""
    consumer, failures = world.consumer(attempts=4), iter(range(3))

    @consumer.on(world.event)
    async def handle(event: Any, tx: Transaction, envelope: Envelope) -> None:
        await write(tx, event, envelope)
        if event.number == 1 and next(failures, None) is not None:
            raise ValueError("not yet")

    async with consumer:
        await world.count(0, 1, 2)
        await eventually(is_ledger(world, 0, 1, 2))

    assert consumer.statistics().retries == 3
    assert consumer.statistics().dead_letters == 0


async def test_deadlocks_are_repeated_and_never_counted_against_the_record(world: World) -> None:
    """More deadlocks than attempts do no harm."""
    consumer, deadlocks = world.consumer(attempts=1), iter(range(5))

    @consumer.on(world.event, locks=SHARED)
    async def handle(event: Any, tx: Transaction, envelope: Envelope) -> None:
        await write(tx, event, envelope)
        if next(deadlocks, None) is not None:
            raise Deadlock("a circle")

    async with consumer:
        await world.count(0, 1, 2)
        await eventually(is_ledger(world, 0, 1, 2))

    assert (consumer.statistics().repeats, consumer.statistics().dead_letters) == (5, 0)


@pytest.mark.parametrize("error", [ConnectionRefusedError("gone"), TimeoutError("slow")], ids=["connection", "timeout"])
async def test_infrastructure_faults_are_waited_out(world: World, error: Exception) -> None:
    """Not the record's fault: repeated longer than `attempts`, said in the statistics, forgotten when over."""
    consumer, broken = world.consumer(attempts=1), asyncio.Event()

    @consumer.on(world.event)
    async def handle(event: Any, tx: Transaction, envelope: Envelope) -> None:
        await write(tx, event, envelope)
        if not broken.is_set():
            raise error

    async with consumer:
        await world.count(0, 1)
        await eventually(lambda: consumer.statistics().outages >= 3)
        assert not consumer.statistics().healthy
        assert type(error).__name__ in (consumer.statistics().reason or "")
        broken.set()
        await eventually(is_ledger(world, 0, 1))
        await eventually(lambda: consumer.statistics().healthy)

    assert await list_dead_letters(world.db) == []


async def test_a_waiting_partition_does_not_hold_up_the_others(world: World) -> None:
    """While one partition waits, another one works."""
    consumer, stuck = world.consumer(), asyncio.Event()
    other = next(k for k in "abcdefgh" if partition_of(k.encode(), 6) != partition_of(b"k", 6))

    @consumer.on(world.event)
    async def handle(event: Any, tx: Transaction, envelope: Envelope) -> None:
        if event.key == "k" and not stuck.is_set():
            raise ConnectionError("away")
        await write(tx, event, envelope)

    async with consumer:
        await world.count(1)
        await world.count(*range(10, 20), key=other)
        await eventually(is_ledger(world, *range(10, 20)))
        stuck.set()
        await eventually(is_ledger(world, *range(10, 20), 1))


async def test_gathered_partitions_share_transactions_and_fail_alone(world: World) -> None:
    """Everything has its effect once and in order by key; what is wrong with one record costs no other its effect."""
    consumer = world.consumer(gather=0.02, attempts=2)
    keys = [f"key-{number}" for number in range(12)]
    assert len({partition_of(key.encode(), PARTITIONS) for key in keys}) > 1

    @consumer.on(world.event, locks=SHARED)
    async def handle(event: Any, tx: Transaction, envelope: Envelope) -> None:
        if event.number == 13:
            raise ValueError("unlucky")
        await write(tx, event, envelope)

    for number in range(20):
        await world.publish(*(world.record(number, key) for key in keys if number != 13 or key == "key-3"))
    before = world.db.statistics().committed
    async with consumer:
        await eventually(lambda: consumer.statistics().handled + consumer.statistics().dead_letters == 229, timeout=60)

    assert len(await list_dead_letters(world.db)) == 7  # it, and what waits behind it
    assert world.db.statistics().committed - before < 120
    for key in keys:
        rows = await world.db.fetch("SELECT number FROM ledger WHERE key = $1 ORDER BY seq", key)
        left_out = range(13, 20) if key == "key-3" else (13,)
        assert [row["number"] for row in rows] == [number for number in range(20) if number not in left_out]


async def test_locks_of_a_batch_are_united_and_sorted(world: World) -> None:
    """All keys of the batch are taken at once, first, once each, in order."""
    consumer = world.consumer()
    taken: list[list[str]] = []

    async def take(tx: Transaction, keys: list[str]) -> None:
        taken.append(keys)

    locks: Locks[Any] = Locks(keys=lambda event: [str(event.number), "all"], take=take)
    writing(world, consumer, locks=locks)
    await world.count(3, 1, 2, 1)
    async with consumer:
        await eventually(is_ledger(world, 3, 1, 2, 1))

    assert taken == [["1", "2", "3", "all"]]


async def test_callbacks_run_after_the_commit_only(world: World) -> None:
    """`tx.after_commit` belongs to each try: a rolled back one calls nothing."""
    consumer, called, failures = world.consumer(), list[int](), iter(range(2))

    @consumer.on(world.event)
    async def handle(event: Any, tx: Transaction, envelope: Envelope) -> None:
        tx.after_commit(lambda: called.append(event.number))
        await write(tx, event, envelope)
        if next(failures, None) is not None:
            raise ValueError("again")

    async with consumer:
        await world.count(5)
        await eventually(is_ledger(world, 5))

    assert called == [5]


async def test_the_trace_goes_on_in_the_handler(world: World) -> None:
    """The writer's trace is the current one while its event is handled."""
    consumer, traces, context = world.consumer(), list[TraceContext | None](), TraceContext.new()

    @consumer.on(world.event)
    async def handle(event: Any, tx: Transaction) -> None:
        traces.append(current())

    async with consumer:
        await world.publish(world.record(1, traceparent=context.traceparent), world.record(2))
        await eventually(lambda: len(traces) == 2)

    assert traces == [context, None]


@BOTH
@pytest.mark.parametrize("point", ["before-commit", "after-commit"])
async def test_a_fault_around_the_commit_loses_and_doubles_nothing(world: World, point: str) -> None:
    """Whichever side of the commit something breaks on, the effect is there once."""
    with armed(f"g.consume.{point}=error*3"):
        async with writing(world, world.consumer(attempts=1), locks=SHARED) as consumer:
            await world.count(0, 1, 2)
            await eventually(is_ledger(world, 0, 1, 2), timeout=15)
            await eventually(is_done(consumer), timeout=15)

    assert await list_dead_letters(world.db) == []


async def test_what_a_broken_lane_held_is_handled_after_its_restart(world: World) -> None:
    """A handler that raises CancelledError, or a fault in the runtime, stalls nothing in silence."""
    consumer, failures = world.consumer(), iter(range(1))

    @consumer.on(world.event)
    async def handle(event: Any, tx: Transaction, envelope: Envelope) -> None:
        if next(failures, None) is not None:
            raise asyncio.CancelledError
        await write(tx, event, envelope)

    async with consumer:
        await world.count(0, 1)
        await eventually(lambda: "broke" in (consumer.statistics().reason or ""))
        await eventually(is_ledger(world, 0, 1))
        await eventually(lambda: consumer.statistics().healthy)


@BOTH
async def test_a_replayed_dead_letter_gets_its_handler_again(world: World) -> None:
    """Dry run says what would be done; a replay has its effect once and leaves the list."""
    consumer, mended = world.consumer(hold_keys=False, attempts=1), asyncio.Event()

    @consumer.on(world.event)
    async def handle(event: Any, tx: Transaction, envelope: Envelope) -> None:
        await write(tx, event, envelope)
        if not mended.is_set():
            raise ValueError(f"try {event.number}")

    async def failed_again() -> bool:
        return {letter.attempts for letter in await list_dead_letters(world.db)} == {2}

    async def all_replayed() -> bool:
        return len(await list_dead_letters(world.db, replayed=True)) == 2

    async with consumer:
        await world.count(1, 2)
        await eventually(lambda: consumer.statistics().dead_letters == 2)
        assert len(await replay(world.db, group="g", dry_run=True)) == 2
        assert len(await replay(world.db, type="count.made")) == 2
        await eventually(failed_again)
        assert await replay(world.db, group="another") == []
        mended.set()
        await replay(world.db, ids=[letter.id for letter in await list_dead_letters(world.db)])
        await eventually(all_replayed)
        await replay(world.db)

    assert await world.ledger() == [1, 2]
    assert await list_dead_letters(world.db) == []
    assert consumer.statistics().replayed == 2


async def test_a_replay_without_a_handler_says_so(world: World) -> None:
    """The dead letter stays, with the new cause."""
    async with writing(world, world.consumer()) as consumer:
        await world.publish(Record(world.topic, b"k", b"{}", ()))
        await eventually(lambda: consumer.statistics().dead_letters == 1)
        await world.db.execute("UPDATE dead_letters SET header_names='{ce_type}', header_values='{abc}'")
        await replay(world.db)

        async def said() -> bool:
            return "no handler" in (await list_dead_letters(world.db))[0].cause

        await eventually(said)


@BOTH
async def test_catching_up_is_remembered(world: World) -> None:
    """True once every partition was at its end; for every process of the service, and for ever."""
    await world.count(*range(20))
    consumer, gate = world.consumer(catch_up=[world.topic]), asyncio.Event()

    @consumer.on(world.event)
    async def handle(event: Any, tx: Transaction, envelope: Envelope) -> None:
        await gate.wait()
        await write(tx, event, envelope)

    async with consumer:
        await eventually(lambda: len(consumer.statistics().assigned) == 6)
        assert not await consumer.caught_up()
        gate.set()
        await eventually(consumer.caught_up)
    assert await world.ledger() == list(range(20))
    world.broker = MemoryBroker()
    another = writing(world, world.consumer(catch_up=[world.topic]))

    assert await another.caught_up()


@BOTH
async def test_an_empty_topic_counts_as_caught_up(world: World) -> None:
    """There is nothing to wait for."""
    async with writing(world, world.consumer(catch_up=[world.topic])) as consumer:
        await eventually(consumer.caught_up)


async def test_the_groups_starts_are_remembered(world: World) -> None:
    """Where the group has committed, a lost offset is a problem that is said, not a jump."""
    async with writing(world, world.consumer()) as consumer:
        await world.count(1)
        await eventually(is_ledger(world, 1))
    world.broker = MemoryBroker()
    world.producer = world.broker.producer()
    await world.count(2)

    async with writing(world, world.consumer()) as consumer:
        place = str(Partition(world.topic, partition_of(b"k", 6)))
        await eventually(lambda: place in (consumer.statistics().reason or ""))
    assert await world.ledger() == [1]


@BOTH
async def test_two_members_share_the_work(world: World) -> None:
    """A member that joins and leaves in the middle loses and doubles nothing."""
    numbers = range(300)
    async with writing(world, world.consumer()) as first:
        for number in numbers[:100]:
            await world.count(number, key=str(number))
        async with writing(world, world.consumer()) as second:
            await eventually(lambda: second.statistics().assigned, timeout=20)
            for number in numbers[100:200]:
                await world.count(number, key=str(number))
            await eventually(lambda: second.statistics().handled > 0)
        for number in numbers[200:]:
            await world.count(number, key=str(number))

        async def all_there() -> bool:
            return sorted(await world.ledger()) == list(numbers)

        await eventually(all_there)
    assert first.statistics().handled + second.statistics().handled == 300


@BOTH
async def test_a_database_outage_loses_nothing(world: World, database: str, postgres: Any) -> None:
    """While the database refuses connections the consumer waits and says so; then everything has its effect, once."""
    name = database.rsplit("/", 1)[1]
    async with (
        Database("admin", dsn=postgres.dsn()) as admin,
        writing(world, world.consumer(), locks=SHARED) as consumer,
    ):
        await world.count(*range(50))
        await eventually(is_ledger(world, *range(50)), timeout=20)
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        await world.count(*range(50, 100))
        await eventually(lambda: not consumer.statistics().healthy, timeout=20)
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await eventually(is_ledger(world, *range(100)), timeout=20)
        await eventually(lambda: consumer.statistics().healthy, timeout=20)

    assert await list_dead_letters(world.db) == []


async def test_leaving_rolls_back_what_waits(world: World) -> None:
    """A consumer that only waits for something can still be stopped at once; its record is for the next one."""
    consumer = world.consumer()

    @consumer.on(world.event)
    async def handle(event: Any, tx: Transaction) -> None:
        raise ConnectionError("for ever")

    async with asyncio.timeout(5):
        async with consumer:
            await world.count(1)
            await eventually(lambda: consumer.statistics().outages > 0)
    async with writing(world, world.consumer()):
        await eventually(is_ledger(world, 1))


async def test_a_broker_that_is_away_is_waited_for(world: World, broker: MemoryBroker) -> None:
    """It starts without the broker, says so, and works when the broker is there."""
    await world.count(1)
    broker.cut()
    async with writing(world, world.consumer()) as consumer:
        await eventually(lambda: "away" in (consumer.statistics().reason or ""))
        broker.heal()
        await eventually(is_ledger(world, 1))
        assert consumer.statistics().healthy


async def test_the_inbox_can_be_pruned(world: World) -> None:
    """Old rows go, young ones stay."""
    async with writing(world, world.consumer()):
        await world.count(1, 2, 3)
        await eventually(is_ledger(world, 1, 2, 3))
    now = datetime.now(UTC)

    assert await prune_inbox(world.db, older_than=now - timedelta(hours=1)) == 0
    assert await prune_inbox(world.db, older_than=now + timedelta(hours=1)) == 3


def test_id_of_a_record_without_one_is_stable() -> None:
    """A redelivered record without an id is known again; another one is not."""
    from backstay.messaging.delivery import _made_id

    at = datetime(2026, 1, 1, tzinfo=UTC)
    one = Record("t", b"k", b"v", (), 0, 1, at)

    assert _made_id(one) == _made_id(Record("t", b"k", b"v", (), 0, 1, at))
    assert _made_id(one) != _made_id(Record("t", b"k", b"v", (), 0, 2, at))
    assert isinstance(_made_id(one), UUID)
