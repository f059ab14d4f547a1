"""Strict mode on a table and a broker in memory."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from backstay.messaging import MemoryBroker, PublishError, Record
from backstay.outbox import MemoryStore, Relay, RelayOptions
from backstay.outbox.leases import ShardState, View
from backstay.outbox.strict import GROUPS, by_group, group_of, shards_of
from backstay.testing import armed, eventually

FAST = RelayOptions(lease=0.6, gather=0.01, max_idle=0.02, drain=1.0, strict=True)
UNDISTURBED = replace(FAST, lease=60.0)
"""A lease that no busy machine lets pass."""


def relay_of(store: MemoryStore, broker: MemoryBroker, name: str = "one", options: RelayOptions = FAST) -> Relay:
    return Relay(store, broker, name=name, source="/service/test", options=options)


def ids(broker: MemoryBroker, topic: str = "orders") -> list[str]:
    return [(record.header("ce_id") or b"").decode() for record in broker.records(topic)]


def fill(store: MemoryStore, rows: int, keys: int = 50) -> list[str]:
    return [str(store.add("orders", f"key-{n % keys}", "order.created").id) for n in range(rows)]


async def test_publishes_each_row_once() -> None:
    """Every committed row is in a committed transaction once, in order per key, whatever group its shard is in."""
    store, broker = MemoryStore(), MemoryBroker()
    written = fill(store, 3000)
    async with relay_of(store, broker, options=UNDISTURBED) as relay:
        await eventually(lambda: not store.rows, timeout=30)
        statistics = relay.statistics()

    assert sorted(ids(broker)) == sorted(written)
    assert statistics.transactions >= GROUPS
    assert (statistics.aborted, statistics.fenced, statistics.restarts) == (0, 0, 0)


@pytest.mark.parametrize("point", ["after-note", "after-publish", "before-delete", "before-publish", "after-fence"])
async def test_death_at_any_step_doubles_nothing(point: str) -> None:
    """A life that ends at any step leaves nothing that the next one publishes again, and nothing unpublished."""
    store, broker = MemoryStore(), MemoryBroker()
    written = fill(store, 500)
    with armed(f"outbox.relay.{point}=error*3"):
        async with relay_of(store, broker) as relay:
            await eventually(lambda: relay.statistics().restarts >= 1, timeout=30)
            await eventually(lambda: not store.rows, timeout=60)
            fill(store, 20)
            await eventually(lambda: not store.rows, timeout=60)

    counts = Counter(ids(broker))
    assert set(counts.values()) == {1}
    assert set(written) <= set(counts)


async def test_a_takeover_deletes_what_is_published() -> None:
    """Rows of a committed transaction whose owner died before deleting them are deleted by the next owner."""
    store, broker = MemoryStore(), MemoryBroker()
    fill(store, 100)
    dying = relay_of(store, broker)
    with armed("outbox.relay.before-delete=hang"):
        await dying.__aenter__()
        await eventually(lambda: len(ids(broker)) == 100, timeout=30)
        assert dying._task is not None
        dying._task.cancel()
        await asyncio.wait({dying._task})
    assert len(store.rows) == 100
    async with relay_of(store, broker, "two") as heir:
        await eventually(lambda: not store.rows, timeout=30)
        assert heir.statistics().recovered == 100

    assert len(ids(broker)) == 100


async def test_a_fenced_relay_ends_its_life() -> None:
    """Who learns from the broker that somebody newer has its shards gives up, and publishes nothing more under them."""
    store, broker = MemoryStore(), MemoryBroker()
    fill(store, 10)
    async with relay_of(store, broker) as relay:
        await eventually(lambda: not store.rows, timeout=30)
        for ident in set(broker._coordinator.newest):
            broker._coordinator.newest[ident] = object()
        written = fill(store, 10)
        await eventually(lambda: relay.statistics().fenced >= 1, timeout=30)
        await eventually(lambda: not store.rows, timeout=30)

    assert Counter(ids(broker)).most_common(1)[0][1] == 1
    assert set(written) <= set(ids(broker))


async def test_poison_parks_its_key_and_the_rest_flows() -> None:
    """A record that is refused for good is left out of its transaction; its key is parked, all else is published."""
    store, broker = MemoryStore(), MemoryBroker()
    bad = store.add("orders", "bad", "order.created", '"poison"')
    after = store.add("orders", "bad", "order.paid")
    broker.refuse = lambda record: PublishError("record", "too large") if record.value == b'"poison"' else None
    written = fill(store, 200)
    async with relay_of(store, broker) as relay:
        await eventually(lambda: store.parked and not store.rows, timeout=30)
        assert relay.statistics().parked == 1

    assert sorted(ids(broker)) == sorted(written)
    assert {row.id for row in store.parked_rows.values()} == {bad.id, after.id}


async def test_a_topic_that_waits_holds_nobody_up() -> None:
    """Rows of a topic that can't be published to wait; other topics in the same transaction go on without them."""
    store, broker = MemoryStore(), MemoryBroker()
    missing = [True]

    def refuse(record: Record) -> PublishError | None:
        return PublishError("retriable", "unknown topic") if missing[0] and record.topic == "nowhere" else None

    broker.refuse = refuse
    for n in range(20):
        store.add("nowhere", f"key-{n}", "order.created")
    written = fill(store, 200)
    async with relay_of(store, broker) as relay:
        await eventually(lambda: len(ids(broker)) == 200, timeout=30)
        assert relay.problem is not None
        assert "nowhere" in relay.problem
        missing[0] = False
        await eventually(lambda: not store.rows, timeout=30)

    assert sorted(ids(broker)) == sorted(written)
    assert len(ids(broker, "nowhere")) == 20


async def test_two_relays_share_groups() -> None:
    """Groups move as a whole: no shard has another owner than its neighbours, and every row is published once."""
    store, broker = MemoryStore(), MemoryBroker()
    async with relay_of(store, broker) as one, relay_of(store, broker, "two") as two:
        await eventually(lambda: one.statistics().shards_owned == two.statistics().shards_owned == 32, timeout=30)
        owners = store.owners
        assert all(len({owners[shard] for shard in shards_of(group)}) == 1 for group in range(GROUPS))
        written = fill(store, 500)
        await eventually(lambda: not store.rows, timeout=30)

    assert sorted(ids(broker)) == sorted(written)


def test_a_group_is_free_when_all_its_shards_are() -> None:
    """One shard with a running lease keeps its group with its owner."""
    me = relay_of(MemoryStore(), MemoryBroker()).id
    shards = [ShardState(shard, me if shard == 9 else None, 3, shard == 9) for shard in range(64)]
    groups = by_group(View(tuple(shards), 2)).shards

    assert [one.live for one in groups] == [False, True] + [False] * 6
    assert (groups[1].owner, group_of(9), list(shards_of(1))) == (me, 1, list(range(8, 16)))
