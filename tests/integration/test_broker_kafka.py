"""What only a real broker can show: refusals, outages, a client that has to be replaced."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError

from backstay.dev import apache
from backstay.dev.ports import free_port
from backstay.dev.program import spawn, stop, wait_until
from backstay.errors import ConfigError
from backstay.messaging import BrokerUnavailable, KafkaBroker, Partition, Record, TopicError
from backstay.messaging.kafka.faults import publish_error
from backstay.messaging.kafka.producer import KafkaProducer
from backstay.messaging.kafka.settings import Settings
from backstay.testing import eventually

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class Recorder:
    """A sink that finishes everything at once."""

    assignments: list[Partition] = field(default_factory=list)
    revocations: list[Partition] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    begun: list[Partition] = field(default_factory=list)
    done: Callable[[Partition, int, int], None] = lambda *_: None

    def assigned(self, partitions: Sequence[Partition], counts: Mapping[str, int]) -> None:
        self.assignments += partitions

    def deliver(self, partition: Partition, records: Sequence[Record]) -> None:
        self.values += [record.value for record in records]
        self.done(partition, (records[-1].offset or 0) + 1, len(records))

    def reached_end(self, partition: Partition) -> None: ...

    def started(self, partitions: Sequence[Partition]) -> None:
        self.begun += partitions

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        self.revocations += partitions


@pytest.fixture
async def broker(kafka: Any) -> AsyncIterator[KafkaBroker]:
    broker = KafkaBroker(kafka.bootstrap, flavor=kafka.flavor)
    yield broker
    await broker.aclose()


@pytest.fixture
def topic() -> str:
    return f"t-{uuid4().hex[:12]}"


def subscribed(broker: KafkaBroker, topic: str) -> tuple[Any, Recorder]:
    sink = Recorder()
    subscription = broker.subscribe(f"g-{topic}", [topic], sink)
    sink.done = subscription.done
    return subscription, sink


async def test_a_record_that_is_too_large_holds_back_its_key_only(broker: KafkaBroker, topic: str) -> None:
    """It is the record's fault; later ones of its key wait for a decision, others pass."""
    await broker.create_topics({topic: 3})
    huge = Record(topic, b"k", b"x" * 2_000_000)
    async with broker.producer() as producer:
        results = await producer.publish([huge, Record(topic, b"k", b"1"), Record(topic, b"j", b"2")])

    kinds = [result and result.kind for result in results]
    assert kinds == ["record", "retriable", None]
    assert "MSG_SIZE_TOO_LARGE" in str(results[0])


async def test_an_impossible_header_is_the_records_fault(broker: KafkaBroker, topic: str) -> None:
    """What the client cannot even encode never reaches the broker."""
    await broker.create_topics({topic: 1})
    async with broker.producer() as producer:
        results = await producer.publish([Record(topic, b"k", b"1", (("x", 17),))])  # type: ignore[arg-type]

    assert [result and result.kind for result in results] == ["record"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, "record"),
        (KafkaError.INVALID_RECORD, "record"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "retriable"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "retriable"),
        (KafkaError.NOT_ENOUGH_REPLICAS, "retriable"),
        (KafkaError._MSG_TIMED_OUT, "retriable"),
        (KafkaError._PURGE_QUEUE, "producer"),
        (KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "producer"),
        (KafkaError._FATAL, "producer"),
    ],
)
def test_errors_are_sorted_by_whose_fault_they_are(code: int, kind: str) -> None:
    """The relay parks, waits or starts over according to this."""
    assert publish_error(KafkaError(code)).kind == kind


async def test_a_producer_without_a_broker_gives_up_in_time_and_can_be_purged() -> None:
    """Nothing hangs for ever: the batch ends as `producer`, for a fresh client to send again."""
    nowhere = Settings(f"127.0.0.1:{free_port()}", "apache", "test").producer()
    async with KafkaProducer(nowhere, timeout=0.3) as producer:
        late = await producer.publish([Record("t", b"k", b"v")] * 3)
    async with KafkaProducer(nowhere) as producer:
        waiting = asyncio.create_task(producer.publish([Record("t", b"k", b"v")]))
        await asyncio.sleep(0.05)
        producer.purge()
        purged = await asyncio.wait_for(waiting, 10)

    assert [result and result.kind for result in late + purged] == ["producer"] * 4


async def test_a_queue_that_stays_full_is_an_error_not_a_hang() -> None:
    """The client's own queue is bounded, and so is the wait for room in it."""
    nowhere = Settings(f"127.0.0.1:{free_port()}", "apache", "test", {"queue.buffering.max.messages": 2}).producer()
    async with KafkaProducer(nowhere, timeout=0.3) as producer:
        results = await producer.publish([Record("t", str(n).encode(), b"v") for n in range(4)])

    assert [result and result.kind for result in results] == ["producer", "producer", "retriable", "retriable"]


async def test_a_purged_producer_goes_on_with_a_fresh_client(broker: KafkaBroker, topic: str) -> None:
    """Purging costs what was in flight, not the producer."""
    await broker.create_topics({topic: 1})
    async with broker.producer() as producer:
        assert await producer.publish([Record(topic, b"k", b"1")]) == [None]
        producer.purge()
        assert await producer.publish([Record(topic, b"k", b"2")]) == [None]


async def test_an_absent_broker_is_said_by_ping_and_creation(topic: str) -> None:
    """The error names the address."""
    port = free_port()
    broker = KafkaBroker(f"127.0.0.1:{port}")
    with pytest.raises(BrokerUnavailable, match=str(port)):
        await broker.ping(0.2)


async def test_a_topic_with_an_impossible_name_is_refused(broker: KafkaBroker) -> None:
    """The error names the topic."""
    if "embedded" in repr(broker):
        pytest.skip("the embedded broker takes any name")
    with pytest.raises(TopicError, match="'no good'"):
        await broker.create_topics({"no good": 1})


async def test_a_member_waits_for_its_topics(broker: KafkaBroker, topic: str) -> None:
    """A topic that nobody has made yet is a problem that is said, and that passes."""
    subscription, sink = subscribed(broker, topic)
    async with subscription:
        await eventually(lambda: topic in (subscription.status().problem or ""), timeout=20)
        await broker.create_topics({topic: 1})
        async with broker.producer() as producer:
            assert await producer.publish([Record(topic, b"k", b"1")]) == [None]
        await eventually(lambda: sink.values == [b"1"], timeout=20)
        assert subscription.status().problem is None


async def test_a_member_that_finds_no_broker_can_be_stopped() -> None:
    """Leaving needs no broker."""
    subscription, _ = subscribed(KafkaBroker(f"127.0.0.1:{free_port()}"), "t")
    async with asyncio.timeout(15):
        async with subscription:
            await eventually(lambda: "away" in (subscription.status().problem or ""))


async def test_a_static_member_comes_back_to_its_partitions(kafka: Any, topic: str) -> None:
    """Its restart disturbs nobody: the other member keeps what it has and gets nothing more."""
    if kafka.flavor == "embedded":
        pytest.skip("the embedded broker has no static members")
    ours, theirs = (KafkaBroker(kafka.bootstrap, instance=f"{topic}-{n}") for n in "ab")
    await ours.create_topics({topic: 4})
    other, other_sink = subscribed(theirs, topic)
    member, _ = subscribed(ours, topic)
    async with other:
        async with member:
            await eventually(lambda: len(other.status().assigned) == len(member.status().assigned) == 2, timeout=60)
            before, kept, taken = (
                set(member.status().assigned),
                set(other.status().assigned),
                list(other_sink.revocations),
            )
        again, _ = subscribed(ours, topic)
        async with again:
            await eventually(lambda: len(again.status().assigned) == 2, timeout=60)
            assert set(again.status().assigned) == before
            assert set(other.status().assigned) == kept
            assert other_sink.revocations == taken


@pytest.mark.parametrize(
    "options",
    [{"protocol": "newest"}, {"flavor": "embedded", "protocol": "consumer"}, {"flavor": "embedded", "instance": "a"}],
)
def test_what_a_broker_cannot_do_is_refused_at_once(options: dict[str, Any]) -> None:
    """An unknown protocol, or one that the embedded broker never answers."""
    with pytest.raises(ConfigError):
        KafkaBroker("127.0.0.1:1", **options)


@pytest.fixture
def node(tmp_path: Path) -> Iterator["Node"]:
    if not apache.is_available():
        pytest.skip("needs Java and Maven")
    apache.fetch()
    node = Node(apache.create(tmp_path / "node", log=tmp_path / "kafka.log"))
    node.start()
    yield node
    node.stop()


class Node:
    """An Apache Kafka that can die and come back with its data."""

    def __init__(self, kafka: apache.Kafka) -> None:
        self.kafka = kafka

    def start(self) -> None:
        self._program = self.kafka.program()
        self._process = spawn(self._program)
        wait_until(self.kafka.is_ready, self._process, self._program, timeout=60)

    def stop(self) -> None:
        stop(self._process, self._program)

    def pause(self) -> None:
        """Let it answer nothing, with its connections open."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.mark.apache
async def test_nothing_is_lost_or_doubled_when_the_broker_dies_and_returns(node: Node, topic: str) -> None:
    """Producer, member and tail say that it is away, wait, and go on; what was published while it was away arrives."""
    broker = KafkaBroker(node.kafka.bootstrap)
    await broker.create_topics({topic: 1})
    subscription, sink = subscribed(broker, topic)
    tail, tailed = broker.tail(topic, LONG_AGO), list[bytes | None]()

    async def follow() -> None:
        async for record in tail:
            tailed.append(record.value)

    following = asyncio.create_task(follow())
    async with broker.producer() as producer, subscription:
        first = [Record(topic, b"k", str(n).encode()) for n in range(100)]
        assert await producer.publish(first) == [None] * 100
        await eventually(lambda: len(sink.values) == len(tailed) == 100, timeout=30)
        node.kill()
        second = [Record(topic, b"k", str(n).encode()) for n in range(100, 200)]
        publishing = asyncio.create_task(producer.publish(second))
        await eventually(lambda: subscription.status().problem and tail.problem, timeout=30)
        await asyncio.to_thread(node.start)
        assert await publishing == [None] * 100
        # the member may see the first hundred again, if the broker died before they were committed there
        await eventually(lambda: len(set(sink.values)) == 200 and len(tailed) >= 200, timeout=40)
        await eventually(lambda: not subscription.status().problem and not tail.problem, timeout=30)
    await tail.aclose()
    with contextlib.suppress(asyncio.CancelledError):
        await following

    assert tailed == [record.value for record in first + second]
    assert list(dict.fromkeys(sink.values)) == tailed


@pytest.mark.apache
async def test_a_member_whose_first_commit_meets_a_dead_broker_reports_the_outage(node: Node, topic: str) -> None:
    """No call of the poll thread waits for a broker longer than the next look at its health."""
    broker = KafkaBroker(node.kafka.bootstrap)
    await broker.create_topics({topic: 1})
    subscription, sink = subscribed(broker, topic)
    sink.done = lambda *_: None
    async with broker.producer() as producer, subscription:
        assert await producer.publish([Record(topic, b"k", b"1")]) == [None]
        await eventually(lambda: sink.values == [b"1"], timeout=30)
        node.pause()
        subscription.done(Partition(topic, 0), 1, 1)
        await eventually(lambda: not subscription._state.marks)  # its commit is on the way
        node.kill()
        await eventually(lambda: subscription.status().problem, timeout=10)
        sink.done = subscription.done
        await asyncio.to_thread(node.start)
        await eventually(lambda: not subscription.status().problem and sink.begun == [Partition(topic, 0)], timeout=40)
