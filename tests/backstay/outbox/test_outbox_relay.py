"""The relay on a table and a broker in memory."""

import asyncio
import random
from collections import Counter, defaultdict
from datetime import UTC, datetime

import pytest

from backstay.db import DatabaseError, Unavailable
from backstay.errors import ConfigError
from backstay.messaging import MemoryBroker, PublishError, Record
from backstay.outbox import MemoryStore, Relay, RelayOptions
from backstay.outbox.store import SHARDS
from backstay.testing import armed, eventually

FAST = RelayOptions(lease=0.6, gather=0.01, max_idle=0.02, drain=1.0)


def relay_of(store: MemoryStore, broker: MemoryBroker, options: RelayOptions = FAST, name: str = "one") -> Relay:
    return Relay(store, broker, name=name, source="/service/test", options=options)


def ids(broker: MemoryBroker, topic: str = "orders") -> list[str]:
    return [(record.header("ce_id") or b"").decode() for record in broker.records(topic)]


def first_occurrences(broker: MemoryBroker, topic: str = "orders") -> dict[bytes, list[str]]:
    seen: dict[bytes, list[str]] = defaultdict(list)
    for record in broker.records(topic):
        ident = (record.header("ce_id") or b"").decode()
        if ident not in seen[record.key or b""]:
            seen[record.key or b""].append(ident)
    return seen


def fill(store: MemoryStore, rows: int, keys: int = 50) -> dict[bytes, list[str]]:
    written: dict[bytes, list[str]] = defaultdict(list)
    for n in range(rows):
        key = f"key-{n % keys}"
        written[key.encode()].append(str(store.add("orders", key, "order.created").id))
    return written


async def test_publishes_then_deletes() -> None:
    """A committed row reaches the broker, and leaves the table after its acknowledgement."""
    store, broker = MemoryStore(), MemoryBroker()
    row = store.add("orders", "o-1", "order.created", '{"a": 1}')
    async with relay_of(store, broker) as relay:
        await eventually(lambda: not store.rows)
        assert relay.problem is None
        statistics = relay.statistics()

    [record] = broker.records("orders")
    assert (record.key, record.value) == (b"o-1", b'{"a": 1}')
    assert record.header("id") == str(row.id).encode()
    assert (statistics.published, statistics.shards_owned) == (1, SHARDS)


async def test_backlog_is_drained_in_order() -> None:
    """10,000 rows go out in order per key, in few statements."""
    store, broker = MemoryStore(), MemoryBroker()
    written = fill(store, 10_000)
    async with relay_of(store, broker) as relay:
        await eventually(lambda: not store.rows)
        statistics = relay.statistics()

    assert first_occurrences(broker) == written
    assert len(ids(broker)) == 10_000
    assert statistics.reads + statistics.deletes <= 100


async def test_late_commit_with_an_earlier_number() -> None:
    """A row whose number was drawn early and whose commit came late is not passed over."""
    store, broker = MemoryStore(), MemoryBroker()
    async with relay_of(store, broker):
        late = store.draw("orders", "late", "order.created")
        store.add("orders", "early", "order.created")
        await eventually(lambda: len(ids(broker)) == 1)
        store.commit(late)
        await eventually(lambda: len(ids(broker)) == 2)


async def test_nudge_wakes_an_idle_relay() -> None:
    """A commit in the same process doesn't wait for the next look."""
    store, broker = MemoryStore(), MemoryBroker()
    slow = RelayOptions(lease=300.0, max_idle=60.0, min_idle=30.0)
    async with relay_of(store, broker, slow) as relay:
        await eventually(lambda: relay.statistics().reads >= 1)
        store.add("orders", "o-1", "order.created")
        relay.nudge()
        await eventually(lambda: ids(broker))


async def test_retriable_failures_keep_the_order() -> None:
    """However often the broker refuses for the moment, first occurrences of a key stay in order."""
    store, broker, chance = MemoryStore(), MemoryBroker(), random.Random(1)
    failures = [0]

    def refuse(_: Record) -> PublishError | None:
        if chance.random() < 0.05 and failures[0] < 40:
            failures[0] += 1
            return PublishError("retriable", "not now")
        return None

    broker.refuse = refuse
    written = fill(store, 300, keys=7)
    async with relay_of(store, broker) as relay:
        await eventually(lambda: not store.rows, timeout=30)
        assert relay.statistics().failed >= failures[0] > 0
        assert relay.problem is None

    assert first_occurrences(broker) == written


async def test_poison_parks_its_key() -> None:
    """A record that the broker will never take is parked with its key's successors; all else flows, in few tries."""
    store, broker = MemoryStore(), MemoryBroker()
    bad = store.add("orders", "bad", "order.created", '"poison"')
    broker.refuse = lambda record: PublishError("record", "too large") if record.value == b'"poison"' else None
    successor = store.add("orders", "bad", "order.confirmed")
    for n in range(50):
        store.add("orders", f"good-{n}", "order.created")
    async with relay_of(store, broker) as relay:
        await eventually(lambda: not store.rows)
        assert store.parked == {("orders", "bad"): "too large"}
        assert [row.id for row in store.parked_rows.values()] == [bad.id, successor.id]
        assert len(ids(broker)) == 50
        assert relay.statistics().parked == 1
        assert relay.statistics().refused == 2
        await eventually(lambda: relay.problem is None)

        late = store.add("orders", "bad", "order.cancelled")
        store.add("orders", "last", "order.created")
        await eventually(lambda: len(ids(broker)) == 51)
        assert late in store.rows
        broker.refuse = lambda record: None
        store.resume("orders", "bad")
        await eventually(lambda: not store.rows)

    assert first_occurrences(broker)[b"bad"] == [bad.id, successor.id, late.id]


async def test_innocent_neighbours_are_not_parked() -> None:
    """A broker that refuses whole batches gets the records one by one, and only the poison is parked."""
    store, broker = MemoryStore(), MemoryBroker()
    written = fill(store, 40, keys=8)
    bad = store.add("orders", "bad", "order.created", '"poison"')
    original, company = broker.producer, [0]

    def producer() -> object:
        made = original()
        publish = made.publish

        async def strict(records: "list[Record]") -> "list[PublishError | None]":
            if any(record.value == b'"poison"' for record in records):
                company[0] += len(records) > 1
                return [PublishError("record", "batch too large")] * len(records)
            return await publish(records)

        made.publish = strict  # type: ignore[method-assign,assignment]
        return made

    broker.producer = producer  # type: ignore[method-assign,assignment]
    async with relay_of(store, broker):
        await eventually(lambda: not store.rows)

    assert list(store.parked) == [("orders", "bad")]
    assert [row.id for row in store.parked_rows.values()] == [bad.id]
    assert first_occurrences(broker) == written
    assert company[0] >= 1


async def test_an_operator_parks() -> None:
    """A key that somebody else parks is left out after the next look, and its rows are put aside."""
    store, broker = MemoryStore(), MemoryBroker()
    async with relay_of(store, broker) as relay:
        await eventually(lambda: relay.statistics().shards_owned == SHARDS)
        store.parked["orders", "odd"] = "an operator said so"
        await eventually(lambda: relay.statistics().parked_keys == 1)
        row = store.add("orders", "odd", "order.created")
        store.add("orders", "even", "order.created")
        await eventually(lambda: len(ids(broker)) == 1)
        await eventually(lambda: list(store.parked_rows.values()) == [row])

    assert len(ids(broker)) == 1


async def test_parking_survives_trouble() -> None:
    """When parking fails, nothing of the key is sent; the next life finds the same poison again."""
    store, broker = MemoryStore(), MemoryBroker()
    broker.refuse = lambda record: PublishError("record", "too large") if record.value == b'"poison"' else None
    store.add("orders", "bad", "order.created", '"poison"')
    store.add("orders", "bad", "order.confirmed")
    with armed("outbox.relay.before-park=error*2"):
        async with relay_of(store, broker) as relay:
            await eventually(lambda: store.parked)
            assert relay.statistics().restarts == 2
            await eventually(lambda: not store.rows)

    assert ids(broker) == []


async def test_failing_topic_lets_others_flow() -> None:
    """A topic that can't be published to waits; other topics flow on, and it goes on by itself once mended."""
    store, broker = MemoryStore(), MemoryBroker()
    broker.refuse = lambda record: PublishError("retriable", "unknown topic") if record.topic == "gone" else None
    for n in range(20):
        store.add("gone", f"k-{n}", "thing.happened")
        store.add("orders", f"k-{n}", "order.created")
    async with relay_of(store, broker) as relay:
        await eventually(lambda: len(store.rows) == 20)
        assert "unknown topic" in str(relay.problem)
        assert relay.statistics().waiting_topics == 1
        broker.refuse = lambda record: None
        await eventually(lambda: not store.rows)
        assert relay.problem is None


async def test_two_relays_share() -> None:
    """Two relays on one table end with half the shards each, and everything is published in order."""
    store, broker = MemoryStore(), MemoryBroker()
    async with relay_of(store, broker) as one, relay_of(store, broker, name="two") as two:
        written = fill(store, 2_000)
        await eventually(lambda: one.statistics().shards_owned == two.statistics().shards_owned == SHARDS // 2)
        for key, more in fill(store, 2_000).items():
            written[key] += more
        await eventually(lambda: not store.rows)

        assert one.statistics().published > 0
        assert two.statistics().published > 0
        assert one.statistics().lease_lost == two.statistics().lease_lost == 0
    assert first_occurrences(broker) == written
    assert set(store.owners.values()) == {None}


async def test_killed_relay_is_replaced() -> None:
    """When a relay dies without a word, another takes over its shards after the lease, under higher epochs."""
    store, broker = MemoryStore(), MemoryBroker()
    dead = relay_of(store, broker)
    await dead.__aenter__()
    await eventually(lambda: dead.statistics().shards_owned == SHARDS)
    kill(dead)
    row = store.add("orders", "o-1", "order.created")
    async with relay_of(store, broker, name="heir") as heir:
        await eventually(lambda: not store.rows)
        assert heir.statistics().shards_owned == SHARDS

    assert ids(broker) == [str(row.id)]
    assert await store.delete(dead.id, {row.shard: [row.seq]}, {row.shard: 1}) == frozenset()


def kill(relay: Relay) -> None:
    """Stop a relay as SIGKILL does: no drain, no release."""
    assert relay._task is not None
    relay._task.cancel()


async def test_stopping_gives_back() -> None:
    """A relay that stops publishes what was committed, and leaves its shards to others at once."""
    store, broker = MemoryStore(), MemoryBroker()
    relay = relay_of(store, broker, RelayOptions(lease=60.0, max_idle=30.0, min_idle=20.0))
    async with relay:
        await eventually(lambda: relay.statistics().reads >= 1)
        store.add("orders", "o-1", "order.created")

    assert len(ids(broker)) == 1
    assert store.rows == []
    assert set(store.owners.values()) == {None}
    await relay.__aexit__(None, None, None)


async def test_stalled_relay_sends_nothing() -> None:
    """A relay that was stopped for longer than its lease sends nothing of what it had read before."""

    class Stalled:
        ahead = 0.0

        def now(self) -> datetime:
            return datetime.now(UTC)

        def monotonic(self) -> float:
            return asyncio.get_running_loop().time() + self.ahead

        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(seconds)

    store, broker, clock = MemoryStore(), MemoryBroker(), Stalled()
    options = RelayOptions(lease=60.0, max_idle=0.02)
    relay = Relay(store, broker, name="zombie", source="/s", options=options, clock=clock)
    with armed("outbox.relay.before-publish=delay:0.2*1"):
        async with relay:
            await eventually(lambda: relay.statistics().shards_owned == SHARDS)
            store.add("orders", "o-1", "order.created")
            await eventually(lambda: relay.statistics().in_flight == 1)
            clock.ahead = 100.0
            await eventually(lambda: relay.statistics().lease_lost == SHARDS or relay.statistics().failed)
            assert ids(broker) == []
            await eventually(lambda: not store.rows)

    assert len(ids(broker)) == 1


@pytest.mark.parametrize("point", ["after-read", "before-publish", "after-publish", "before-delete"])
async def test_a_crash_anywhere_loses_nothing(point: str) -> None:
    """Wherever a life of the relay ends, the next one publishes what is still there, in order."""
    store, broker = MemoryStore(), MemoryBroker()
    written = fill(store, 500)
    with armed(f"outbox.relay.{point}=error*2"):
        async with relay_of(store, broker) as relay:
            await eventually(lambda: not store.rows)
            assert relay.statistics().restarts >= 1

    assert first_occurrences(broker) == written


async def test_database_trouble_is_waited_out() -> None:
    """While the database is away the relay says so and goes on living."""
    store, broker = MemoryStore(), MemoryBroker()
    async with relay_of(store, broker) as relay:
        await eventually(lambda: relay.problem is None)
        store.error = Unavailable("connection refused")
        await eventually(lambda: "refused" in str(relay.problem))
        store.add("orders", "o-1", "order.created")
        store.error = DatabaseError("no such table")
        await eventually(lambda: "no such table" in str(relay.problem))
        store.error = None
        await eventually(lambda: not store.rows)
        assert relay.problem is None


async def test_broker_outage_is_waited_out() -> None:
    """While the broker is away rows wait; afterwards they go out in order."""
    store, broker = MemoryStore(), MemoryBroker()
    async with relay_of(store, broker) as relay:
        broker.cut()
        written = fill(store, 100, keys=3)
        await eventually(lambda: relay.statistics().in_flight)
        assert len(store.rows) == 100
        broker.heal()
        await eventually(lambda: not store.rows)

    assert first_occurrences(broker) == written


async def test_stop_during_an_outage() -> None:
    """With the broker away a stop takes no longer than the drain; the rows stay in the table."""
    store, broker = MemoryStore(), MemoryBroker()
    async with relay_of(store, broker, RelayOptions(lease=0.6, max_idle=0.02, drain=0.1)) as relay:
        broker.cut()
        fill(store, 10)
        await eventually(lambda: relay.statistics().in_flight)
        async with asyncio.timeout(3):
            await relay.__aexit__(None, None, None)

    assert len(store.rows) == 10


async def test_stale_deletion_is_refused() -> None:
    """A deletion under an epoch that is over is refused, counted, and ends the relay's life."""
    store, broker = MemoryStore(), MemoryBroker()
    async with relay_of(store, broker, RelayOptions(lease=30.0, gather=0.3, max_idle=0.02)) as relay:
        await eventually(lambda: relay.statistics().shards_owned == SHARDS)
        row = store.add("orders", "o-1", "order.created")
        await eventually(lambda: ids(broker))
        store._shards[row.shard].epoch += 1
        await eventually(lambda: relay.statistics().restarts == 1)
        await eventually(lambda: not store.rows)
        assert relay.statistics().lease_lost >= 1

    assert Counter(ids(broker)) == {str(row.id): 2}


async def test_backlog_is_measured() -> None:
    """Statistics tell what waits and how old it is."""
    store, broker = MemoryStore(), MemoryBroker()
    broker.cut()
    fill(store, 30)
    async with relay_of(store, broker) as relay:
        await eventually(lambda: relay.statistics().shards_owned)
        relay._cycle.backlog = await store.backlog(range(SHARDS))
        assert relay.statistics().pending == 30
        assert relay.statistics().oldest_age >= 0
        broker.heal()


async def test_needs_a_broker() -> None:
    """A relay without a broker says which setting is missing; a running one keeps its broker."""
    relay = Relay(MemoryStore(), name="one", source="/s")
    with pytest.raises(ConfigError, match="KAFKA"):
        await relay.__aenter__()
    relay.use_broker(MemoryBroker())
    async with relay:
        with pytest.raises(ConfigError, match="running"):
            relay.use_broker(MemoryBroker())
    assert relay.problem == "it is not running"
    assert relay.statistics().shards_owned == 0
