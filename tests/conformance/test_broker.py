"""What every broker must do, shown on the in-memory one and on a real one alike."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import uuid4

import pytest

from backstay.messaging import Broker, KafkaBroker, MemoryBroker, Partition, Record
from backstay.messaging.partitioner import partition_of
from backstay.testing import eventually

PARTITIONS = 3
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class KafkaAddress(Protocol):
    bootstrap: str
    flavor: str


KINDS = ["memory", pytest.param("kafka", marks=pytest.mark.kafka)]
GROUPS = pytest.mark.parametrize("broker", [*KINDS, pytest.param("kip-848", marks=pytest.mark.kafka)], indirect=True)


@pytest.fixture(params=KINDS)
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    if request.param == "memory":
        yield MemoryBroker()
        return
    kafka = request.getfixturevalue("kafka")
    new = request.param == "kip-848"
    if new and kafka.flavor == "embedded":
        pytest.skip("the embedded broker has no such groups")
    broker = KafkaBroker(kafka.bootstrap, flavor=kafka.flavor, protocol="consumer" if new else "classic")
    yield broker
    await broker.aclose()


@pytest.fixture
async def topic(broker: Broker) -> str:
    name = f"t-{uuid4().hex[:12]}"
    await broker.create_topics({name: PARTITIONS})
    return name


@dataclass
class Recorder:
    """A sink that finishes everything at once, unless told to hold it."""

    hold: bool = False
    records: list[Record] = field(default_factory=list)
    assignments: list[Partition] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    ends: list[Partition] = field(default_factory=list)
    begun: list[Partition] = field(default_factory=list)
    revocations: list[Partition] = field(default_factory=list)
    done: Callable[[Partition, int, int], None] = lambda *_: None

    def assigned(self, partitions: Sequence[Partition], counts: Mapping[str, int]) -> None:
        self.assignments += partitions
        self.counts = dict(counts)

    def deliver(self, partition: Partition, records: Sequence[Record]) -> None:
        self.records += records
        if not self.hold:
            self.done(partition, (records[-1].offset or 0) + 1, len(records))

    def reached_end(self, partition: Partition) -> None:
        self.ends.append(partition)

    def started(self, partitions: Sequence[Partition]) -> None:
        self.begun += partitions

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        self.revocations += partitions

    def values(self) -> list[bytes | None]:
        return [record.value for record in self.records]


class Member:
    """A subscription with its recorder."""

    def __init__(self, broker: Broker, topic: str, group: str, *, hold: bool = False, **options: object) -> None:
        self.sink = Recorder(hold)
        self.subscription = broker.subscribe(group, [topic], self.sink, **options)  # type: ignore[arg-type]
        self.sink.done = self.subscription.done

    async def __aenter__(self) -> "Member":
        await self.subscription.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.subscription.__aexit__(None, None, None)


async def send(broker: Broker, topic: str, *values: str, key: str | None = None) -> None:
    records = [Record(topic, (key or value).encode(), value.encode(), (("id", value.encode()),)) for value in values]
    async with broker.producer() as producer:
        assert await producer.publish(records) == [None] * len(records)


def texts(first: int, last: int) -> list[str]:
    return [f"v{number}" for number in range(first, last)]


def group() -> str:
    return f"g-{uuid4().hex[:12]}"


async def test_everything_published_is_delivered_once_with_all_it_had(broker: Broker, topic: str) -> None:
    """Key, value, headers, partition, offset and time come through."""
    await send(broker, topic, *texts(0, 50))
    async with Member(broker, topic, group()) as member:
        await eventually(lambda: len(member.sink.records) == 50, timeout=20)

    record = next(record for record in member.sink.records if record.value == b"v7")
    assert (record.topic, record.key, record.headers) == (topic, b"v7", (("id", b"v7"),))
    assert record.partition == partition_of(b"v7", PARTITIONS)
    assert record.timestamp is not None
    assert abs(datetime.now(UTC) - record.timestamp) < timedelta(minutes=1)
    assert sorted(str(value) for value in member.sink.values()) == sorted(str(v.encode()) for v in texts(0, 50))


async def test_order_of_a_key_is_the_order_of_publishing(broker: Broker, topic: str) -> None:
    """Batches published without waiting for each other keep their order."""
    async with broker.producer() as producer, Member(broker, topic, group()) as member:
        batches = [[Record(topic, b"k", f"{b}-{i}".encode()) for i in range(40)] for b in range(5)]
        results = await asyncio.gather(*(producer.publish(batch) for batch in batches))
        await eventually(lambda: len(member.sink.records) == 200, timeout=20)

    assert results == [[None] * 40] * 5
    assert member.sink.values() == [record.value for batch in batches for record in batch]


async def test_tombstones_and_missing_keys_travel(broker: Broker, topic: str) -> None:
    """Neither a key nor a value is needed."""
    async with broker.producer() as producer, Member(broker, topic, group()) as member:
        assert await producer.publish([Record(topic, b"k", None), Record(topic, None, b"v")]) == [None, None]
        await eventually(lambda: len(member.sink.records) == 2, timeout=20)

    assert {(record.key, record.value) for record in member.sink.records} == {(b"k", None), (None, b"v")}


async def test_an_explicit_partition_is_used(broker: Broker, topic: str) -> None:
    """A record may say where it goes; a partition that does not exist is the record's fault."""
    async with broker.producer() as producer, Member(broker, topic, group()) as member:
        results = await producer.publish([Record(topic, b"k", b"v", (), 2), Record(topic, b"j", b"w", (), 99)])
        await eventually(lambda: len(member.sink.records) == 1, timeout=20)

    assert results[0] is None
    assert results[1] is not None
    assert results[1].kind == "record"
    assert member.sink.records[0].partition == 2


async def test_an_empty_batch_is_nothing(broker: Broker) -> None:
    """Publishing nothing succeeds."""
    async with broker.producer() as producer:
        assert await producer.publish([]) == []


@GROUPS
async def test_a_group_goes_on_where_it_was(broker: Broker, topic: str) -> None:
    """What one member finished, the next one does not see again."""
    same = group()
    await send(broker, topic, *texts(0, 20))
    async with Member(broker, topic, same) as first:
        await eventually(lambda: len(first.sink.records) == 20, timeout=20)
    await send(broker, topic, "later")
    async with Member(broker, topic, same, started=first.sink.begun) as second:
        await eventually(lambda: second.sink.records, timeout=20)

    assert second.sink.values() == [b"later"]
    assert sorted(first.sink.revocations) == sorted(first.sink.assignments)


@GROUPS
async def test_what_is_not_finished_is_delivered_again(broker: Broker, topic: str) -> None:
    """Delivery alone moves no offset."""
    same = group()
    await send(broker, topic, *texts(0, 20))
    async with Member(broker, topic, same, hold=True) as first:
        await eventually(lambda: len(first.sink.records) == 20, timeout=20)
    async with Member(broker, topic, same) as second:
        await eventually(lambda: len(second.sink.records) == 20, timeout=20)

    assert first.sink.begun == []


@GROUPS
async def test_first_offsets_are_reported_when_committed(broker: Broker, topic: str) -> None:
    """The group's start in a partition becomes known once it can be relied upon."""
    await send(broker, topic, "a", "b", key="one")
    async with Member(broker, topic, group()) as member:
        await eventually(lambda: member.sink.begun, timeout=20)

    assert member.sink.begun == [Partition(topic, partition_of(b"one", PARTITIONS))]


@GROUPS
async def test_a_lost_offset_is_a_problem_not_a_jump(broker: Broker, topic: str) -> None:
    """Where the group had started, it never silently starts again."""
    everywhere = [Partition(topic, number) for number in range(PARTITIONS)]
    await send(broker, topic, *texts(0, 20))
    async with Member(broker, topic, group(), started=everywhere) as member:
        await eventually(lambda: "offset" in (member.subscription.status().problem or ""), timeout=20)

        assert member.sink.records == []


async def test_groups_do_not_disturb_each_other(broker: Broker, topic: str) -> None:
    """Every group gets every record."""
    await send(broker, topic, *texts(0, 10))
    async with Member(broker, topic, group()) as one, Member(broker, topic, group()) as two:
        await eventually(lambda: len(one.sink.records) == len(two.sink.records) == 10, timeout=20)


@GROUPS
async def test_two_members_share_the_partitions(broker: Broker, topic: str) -> None:
    """A member that joins takes over partitions after the other let go of them, and gives them back when it leaves."""
    same = group()
    async with Member(broker, topic, same) as first:
        await eventually(lambda: len(first.subscription.status().assigned) == PARTITIONS, timeout=20)
        async with Member(broker, topic, same) as second:
            await eventually(lambda: second.subscription.status().assigned, timeout=20)
            await eventually(lambda: len(owned(first, second)) == PARTITIONS, timeout=20)
            await send(broker, topic, *texts(0, 30))
            await eventually(lambda: len(first.sink.records) + len(second.sink.records) == 30, timeout=20)
            assert {r.partition for r in first.sink.records}.isdisjoint({r.partition for r in second.sink.records})
        await eventually(lambda: len(first.subscription.status().assigned) == PARTITIONS, timeout=20)
        await send(broker, topic, *texts(30, 60))
        await eventually(lambda: len(first.sink.records) + len(second.sink.records) == 60, timeout=20)


def owned(*members: Member) -> list[Partition]:
    return [partition for member in members for partition in member.subscription.status().assigned]


@GROUPS
async def test_a_paused_partition_rests_and_goes_on(broker: Broker, topic: str) -> None:
    """Pausing one partition stops that one alone; nothing of it is lost."""
    resting = Partition(topic, partition_of(b"rest", PARTITIONS))
    other = next(key for key in "abcdefgh" if partition_of(key.encode(), PARTITIONS) != resting.number)
    async with Member(broker, topic, group()) as member:
        await eventually(lambda: len(member.subscription.status().assigned) == PARTITIONS, timeout=20)
        member.subscription.pause(resting)
        await send(broker, topic, "move", key=other)
        await eventually(lambda: member.sink.records, timeout=20)
        await send(broker, topic, "r1", "r2", key="rest")
        await send(broker, topic, "move", key=other)
        await eventually(lambda: len(member.sink.records) == 2, timeout=20)
        member.subscription.resume(resting)
        await eventually(lambda: len(member.sink.records) == 4, timeout=20)

    assert member.sink.values() == [b"move", b"move", b"r1", b"r2"]


@GROUPS
async def test_a_partition_that_comes_back_flows_though_it_was_paused_when_it_went(broker: Broker, topic: str) -> None:
    """A pause ends with the assignment: whoever gets the partition next, even the same member, reads it."""
    same, all_ = group(), [Partition(topic, number) for number in range(PARTITIONS)]
    async with Member(broker, topic, same) as first:
        await eventually(lambda: len(first.subscription.status().assigned) == PARTITIONS, timeout=20)
        for partition in all_:
            first.subscription.pause(partition)
        await send(broker, topic, *texts(0, 30))
        async with Member(broker, topic, same, hold=True) as second:
            await eventually(lambda: second.subscription.status().assigned, timeout=20)
            await eventually(lambda: len(owned(first, second)) == PARTITIONS, timeout=20)
            gone = set(second.subscription.status().assigned)
        await eventually(lambda: len(first.subscription.status().assigned) == PARTITIONS, timeout=20)
        for partition in set(all_) - gone:
            first.subscription.resume(partition)
        await eventually(lambda: len(first.sink.records) == 30, timeout=20)


@GROUPS
async def test_a_member_that_finishes_nothing_is_given_a_bounded_number(broker: Broker, topic: str) -> None:
    """Memory is bounded; when room is made, the rest follows, each record once."""
    async with broker.producer() as producer:
        for start in range(0, 9000, 3000):
            await producer.publish([Record(topic, str(n).encode(), b"x") for n in range(start, start + 3000)])
    async with Member(broker, topic, group(), hold=True) as member:
        await eventually(lambda: len(member.sink.records) >= 4000, timeout=20)
        await asyncio.sleep(0.8)
        assert len(member.sink.records) < 4500
        member.sink.hold = False
        for partition in member.sink.assignments:
            mine = [record for record in member.sink.records if record.partition == partition.number]
            if mine:
                member.subscription.done(partition, (mine[-1].offset or 0) + 1, len(mine))
        await eventually(lambda: len(member.sink.records) == 9000, timeout=20)


@GROUPS
async def test_the_end_is_reported_once_per_partition(broker: Broker, topic: str) -> None:
    """All that lay there at the start is delivered before the end is reported, also where nothing lay."""
    await send(broker, topic, *texts(0, 20), key="only-one-partition")
    async with Member(broker, topic, group(), watch_end=True) as member:
        await eventually(lambda: len(member.sink.ends) == PARTITIONS, timeout=20)
        assert len(member.sink.records) == 20
        await send(broker, topic, "more")
        await eventually(lambda: len(member.sink.records) == 21, timeout=20)

    assert sorted(member.sink.ends) == [Partition(topic, number) for number in range(PARTITIONS)]
    assert member.sink.counts == {topic: PARTITIONS}


async def test_a_tail_sees_everything_without_a_group(broker: Broker, topic: str) -> None:
    """Two tails see the same, what was there and what comes."""
    await send(broker, topic, "old")
    async with AsyncExitStack() as stack:
        tails = [broker.tail(topic, LONG_AGO) for _ in range(2)]
        for tail in tails:
            stack.push_async_callback(tail.aclose)
            assert (await asyncio.wait_for(anext(tail), 20)).value == b"old"
        await send(broker, topic, "new")
        for tail in tails:
            assert (await asyncio.wait_for(anext(tail), 20)).value == b"new"
            assert tail.problem is None


async def test_a_tail_begins_at_its_moment(broker: Broker, topic: str, request: pytest.FixtureRequest) -> None:
    """Older records are left out where the broker can look up times; those after the moment never are."""
    now = datetime.now(UTC)
    old = Record(topic, b"k", b"old", (), None, None, now - timedelta(hours=1))
    async with broker.producer() as producer:
        assert await producer.publish([old, Record(topic, b"k", b"new")]) == [None, None]
    tail = broker.tail(topic, now - timedelta(minutes=1))
    first = await asyncio.wait_for(anext(tail), 20)
    await tail.aclose()

    assert first.value == (b"old" if "embedded" in repr(broker) else b"new")


async def test_a_closed_tail_ends(broker: Broker, topic: str) -> None:
    """Closing ends the iteration of whoever waits."""
    tail = broker.tail(topic, LONG_AGO)
    waiting = asyncio.create_task(anext(tail))
    await asyncio.sleep(0)
    await tail.aclose()

    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(waiting, 20)


async def test_creating_topics_again_is_fine(broker: Broker, topic: str) -> None:
    """Whoever starts may create the topics; the broker answers a ping."""
    await broker.create_topics({topic: PARTITIONS})
    await broker.ping(5.0)
