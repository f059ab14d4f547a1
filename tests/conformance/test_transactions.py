"""What transactional producers must do, shown in memory and on Apache Kafka alike."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from backstay.errors import ConfigError
from backstay.messaging import Broker, Fenced, KafkaBroker, MemoryBroker, PublishError, Record, TransactionLost
from backstay.testing import eventually

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TOO_LARGE = b"x" * 2_000_000


@pytest.fixture(params=["memory", pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.apache])])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    if request.param == "memory":
        memory = MemoryBroker()
        memory.refuse = lambda one: PublishError("record", "too large") if one.value == TOO_LARGE else None
        yield memory
        return
    kafka = request.getfixturevalue("kafka")
    if kafka.flavor == "embedded":
        pytest.skip("the embedded broker has no transactions")
    broker = KafkaBroker(kafka.bootstrap)
    yield broker
    await broker.aclose()


@pytest.fixture
async def topic(broker: Broker) -> str:
    name = f"t-{uuid4().hex[:12]}"
    await broker.create_topics({name: 1})
    return name


@pytest.fixture
def ident() -> str:
    return f"tx-{uuid4().hex[:12]}"


def records(topic: str, *values: bytes) -> list[Record]:
    return [Record(topic, f"k{n}".encode(), value) for n, value in enumerate(values)]


async def seen(broker: Broker, topic: str, last: bytes) -> list[bytes | None]:
    """What a reader of committed records finds, up to the value `last`."""
    values: list[bytes | None] = []
    tail = broker.tail(topic, LONG_AGO)
    try:
        async with asyncio.timeout(60):
            async for record in tail:
                values.append(record.value)
                if record.value == last:
                    return values
    finally:
        await tail.aclose()
    raise AssertionError("the tail ended")


async def test_a_batch_is_committed_with_its_mark(broker: Broker, topic: str, ident: str) -> None:
    """What is committed is seen, and whoever opens the id next knows the mark of the last transaction."""
    async with broker.transactional(ident) as first:
        assert await first.marks() == frozenset()
        assert await first.publish(records(topic, b"1", b"2"), "mark-1") == [None, None]
        assert await first.publish(records(topic, b"3"), "mark-2") == [None]
    async with broker.transactional(ident) as second:
        assert "mark-2" in await second.marks()
        assert "mark-1" not in await second.marks()

    assert await seen(broker, topic, b"3") == [b"1", b"2", b"3"]


async def test_a_refused_record_takes_its_batch_back(broker: Broker, topic: str, ident: str) -> None:
    """One record that is refused: nothing of it is seen, only the record is blamed, the next one goes through."""
    async with broker.transactional(ident) as producer:
        results = await producer.publish(records(topic, b"1", TOO_LARGE, b"2"), "mark-1")
        assert [result and result.kind for result in results] == ["producer", "record", "producer"]
        assert await producer.marks() == frozenset()
        assert await producer.publish(records(topic, b"3"), "mark-2") == [None]

    assert await seen(broker, topic, b"3") == [b"3"]


async def test_an_older_producer_is_fenced(broker: Broker, topic: str, ident: str) -> None:
    """Once somebody newer has the id, its former owner gets nothing through any more."""
    async with broker.transactional(ident) as zombie, broker.transactional(ident) as owner:
        with pytest.raises((Fenced, TransactionLost)) as caught:
            await zombie.publish(records(topic, b"late"), "mark-late")
        assert await owner.publish(records(topic, b"1"), "mark-1") == [None]
    async with broker.transactional(ident) as successor:
        assert await successor.marks() == {"mark-1"}

    assert caught.type is Fenced
    assert await seen(broker, topic, b"1") == [b"1"]


async def test_a_purged_producer_is_of_no_use(broker: Broker, topic: str, ident: str) -> None:
    """After `purge` nothing goes out, and the next producer of the id goes on."""
    async with broker.transactional(ident) as producer:
        producer.purge()
        with pytest.raises((TransactionLost, Fenced)):
            await producer.publish(records(topic, b"late"), "mark-late")
    async with broker.transactional(ident) as fresh:
        assert await fresh.publish(records(topic, b"1"), "mark-1") == [None]

    assert await seen(broker, topic, b"1") == [b"1"]


def test_the_embedded_broker_has_none() -> None:
    """Where transactions don't hold, asking for them is refused, with the reason."""
    with pytest.raises(ConfigError, match="Apache Kafka"):
        KafkaBroker("127.0.0.1:1", flavor="embedded").transactional("x")


@pytest.fixture
async def kafka_broker(kafka: Any) -> AsyncIterator[KafkaBroker]:
    if kafka.flavor == "embedded":
        pytest.skip("the embedded broker has no transactions")
    broker = KafkaBroker(kafka.bootstrap)
    yield broker
    await broker.aclose()


@pytest.mark.kafka
@pytest.mark.apache
async def test_a_batch_that_the_broker_refuses(kafka_broker: KafkaBroker, kafka: Any, ident: str) -> None:
    """A record too large for the topic's limit is blamed, nothing of it is seen; whoever opens the id next goes on."""
    topic = f"t-{uuid4().hex[:12]}"
    small = NewTopic(topic, 1, 1, config={"max.message.bytes": "2000"})
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for made in admin.create_topics([small]).values():
        await asyncio.wrap_future(made)
    async with kafka_broker.transactional(ident) as producer:
        [refused] = await producer.publish(records(topic, b"x" * 5000), "mark-1")
        assert refused is not None
        assert refused.kind == "record"
    await eventually(lambda: goes_through(kafka_broker, topic, ident), timeout=60)

    assert await seen(kafka_broker, topic, b"2") == [b"2"]


async def goes_through(broker: KafkaBroker, topic: str, ident: str) -> bool:
    """One more try, by whoever opens the id next."""
    async with broker.transactional(ident) as producer:
        return await producer.publish(records(topic, b"2"), "mark-2") == [None]


@pytest.mark.kafka
@pytest.mark.apache
async def test_a_missing_topic_is_told_apart(kafka_broker: KafkaBroker, kafka: Any, ident: str) -> None:
    """Records of a topic that doesn't exist may be sent later; those of others aren't blamed, and go without them."""
    topic = f"t-{uuid4().hex[:12]}"
    await kafka_broker.create_topics({topic: 1})
    async with kafka_broker.transactional(ident) as producer:
        mixed = [*records(topic, b"1"), *records(f"missing-{topic}", b"2")]
        results = await producer.publish(mixed, "mark-1")
        assert [result and result.kind for result in results] == ["producer", "retriable"]
        assert await producer.publish(mixed[:1], "mark-2") == [None]

    assert await seen(kafka_broker, topic, b"1") == [b"1"]
