"""What the in-memory broker offers to tests beyond a real one."""

import asyncio

import pytest

from backstay.messaging import BrokerUnavailable, MemoryBroker, PublishError, Record, TopicError
from backstay.testing import FakeClock


def record(value: str, key: str = "k") -> Record:
    return Record("t", key.encode(), value.encode())


async def test_refused_records_are_not_stored_and_hold_back_their_key() -> None:
    """`refuse` decides the fate of single records, with the order per key of a real producer."""
    broker = MemoryBroker()
    broker.refuse = lambda record: PublishError("record", "too large") if record.value == b"2" else None
    async with broker.producer() as producer:
        results = await producer.publish([record("1"), record("2"), record("3"), record("4", "j")])

    assert [result and result.kind for result in results] == [None, "record", "retriable", None]
    assert sorted(stored.value or b"" for stored in broker.records("t")) == [b"1", b"4"]


async def test_publishing_waits_out_an_outage() -> None:
    """What is published while the broker is cut off arrives when it is healed, in order."""
    broker = MemoryBroker()
    broker.cut()
    async with broker.producer() as producer:
        waiting = [asyncio.create_task(producer.publish([record(str(n))])) for n in range(3)]
        await asyncio.sleep(0)
        assert broker.records("t") == []
        broker.heal()
        assert await asyncio.gather(*waiting) == [[None]] * 3

    assert [stored.value for stored in broker.records("t")] == [b"0", b"1", b"2"]


async def test_a_purge_ends_what_waits() -> None:
    """The records end as `producer`, and the producer goes on."""
    broker = MemoryBroker()
    broker.cut()
    async with broker.producer() as producer:
        waiting = asyncio.create_task(producer.publish([record("1")]))
        await asyncio.sleep(0.01)
        producer.purge()
        (purged,) = await waiting
        broker.heal()
        assert await producer.publish([record("2")]) == [None]

    assert purged is not None
    assert purged.kind == "producer"


async def test_a_cut_broker_answers_nothing() -> None:
    """Ping, creation and tail say so."""
    broker = MemoryBroker()
    broker.cut()
    with pytest.raises(BrokerUnavailable):
        await broker.ping()
    with pytest.raises(BrokerUnavailable):
        await broker.create_topics({"t": 1})
    tail = broker.tail("t", FakeClock().now())

    assert tail.problem == "the broker is away"
    assert "available=False" in repr(broker)


async def test_stored_records_know_their_place_and_time() -> None:
    """Offsets count per partition; times are the clock's, in milliseconds."""
    clock = FakeClock()
    broker = MemoryBroker(clock=clock)
    async with broker.producer() as producer:
        await producer.publish([record("1"), record("2")])
    first, second = broker.records("t")

    assert (first.offset, second.offset, first.partition) == (0, 1, second.partition)
    assert first.timestamp == clock.now().replace(microsecond=clock.now().microsecond // 1000 * 1000)


async def test_a_topic_has_at_least_one_partition() -> None:
    """Zero is a mistake."""
    with pytest.raises(TopicError, match="'t' cannot have 0 partitions"):
        await MemoryBroker().create_topics({"t": 0})
