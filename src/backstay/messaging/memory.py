"""A broker in memory, for tests and examples: same order, groups, offsets and partitioner as Kafka, no network.

Topics are created by the first use, as with the embedded broker. `cut()` and `heal()` play an outage; `refuse` makes
single records fail.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Self

import msgspec

from backstay.clock import SYSTEM, Clock
from backstay.messaging.broker import PUBLISH_TIMEOUT, Sink
from backstay.messaging.errors import BrokerUnavailable, PublishError, TopicError
from backstay.messaging.memory_group import Group, MemorySubscription
from backstay.messaging.memory_log import Logs, Topic
from backstay.messaging.memory_transactions import Coordinator, MemoryTransactions
from backstay.messaging.partitioner import partition_of
from backstay.messaging.record import Partition, Record


class MemoryBroker:
    """A `Broker` whose log lives in this object.

    refuse: asked for every record published; what it returns is that record's fate instead of storing it.
    """

    def __init__(self, *, clock: Clock = SYSTEM) -> None:
        self.refuse: Callable[[Record], PublishError | None] = _accept
        self._clock = clock
        self._logs = Logs()
        self._groups: dict[str, Group] = {}
        self._coordinator = Coordinator()

    def __repr__(self) -> str:
        return f"MemoryBroker(topics={sorted(self._logs.topics)}, available={self._logs.available})"

    async def create_topics(self, topics: Mapping[str, int]) -> None:
        """As in `Broker`."""
        await self.ping()
        for name, count in topics.items():
            if count < 1:
                raise TopicError(f"topic {name!r} cannot have {count} partitions: at least 1")
            self._logs.topics.setdefault(name, Topic([[] for _ in range(count)]))
        self._logs.changed()

    def producer(self) -> "MemoryProducer":
        """As in `Broker`."""
        return MemoryProducer(self, self._logs)

    def transactional(self, ident: str) -> MemoryTransactions:
        """As in `Broker`."""
        return MemoryTransactions(ident, self._coordinator, self._fate, self._store_all)

    def subscribe(
        self,
        group: str,
        topics: Sequence[str],
        sink: Sink,
        *,
        started: Collection[Partition] = (),
        watch_end: bool = False,
        gather: float = 0.0,  # noqa: ARG002 - nothing is gained by waiting here
    ) -> MemorySubscription:
        """As in `Broker`."""
        found = self._groups.setdefault(group, Group())
        return MemorySubscription(self._logs, found, topics, sink, frozenset(started), watch_end=watch_end)

    def tail(self, topic: str, since: datetime) -> "MemoryTail":
        """As in `Broker`."""
        return MemoryTail(self._logs, topic, since)

    async def ping(self, timeout: float = 1.0) -> None:  # noqa: ARG002
        """As in `Broker`."""
        if not self._logs.available:
            raise BrokerUnavailable("the in-memory broker is cut off: heal() it")

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def cut(self) -> None:
        """Nothing goes in or out until `heal`."""
        self._logs.available = False
        self._logs.changed()

    def heal(self) -> None:
        """Restore all connections after `cut`."""
        self._logs.available = True
        self._logs.changed()

    def records(self, topic: str) -> list[Record]:
        """All that lies in the topic, partition after partition."""
        return [record for log in self._logs.topic(topic).partitions for record in log]

    def committed(self, group: str) -> dict[Partition, int]:
        """Return the group's committed offsets."""
        return dict(self._groups.setdefault(group, Group()).committed)

    def store(self, record: Record) -> None:
        """Append a record to its partition, with offset and time."""
        topic = self._logs.topic(record.topic)
        number = self._place(topic, record)
        log = topic.partitions[number]
        now = self._clock.now()
        time = record.timestamp or now.replace(microsecond=now.microsecond // 1000 * 1000)
        log.append(msgspec.structs.replace(record, partition=number, offset=len(log), timestamp=time))

    def _fate(self, record: Record) -> PublishError | None:
        return self.refuse(record)

    def _store_all(self, records: Sequence[Record]) -> None:
        for record in records:
            self.store(record)
        self._logs.changed()

    @staticmethod
    def _place(topic: Topic, record: Record) -> int:
        count = len(topic.partitions)
        if record.partition is not None:
            if not 0 <= record.partition < count:
                raise PublishError("record", f"topic {record.topic!r} has no partition {record.partition}")
            return record.partition
        if record.key is not None:
            return partition_of(record.key, count)
        topic.turn += 1
        return topic.turn % count


class MemoryProducer:
    """A `Producer` into a memory broker."""

    def __init__(self, broker: MemoryBroker, logs: Logs) -> None:
        self._broker = broker
        self._logs = logs
        self._order = asyncio.Lock()
        self._purged = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.purge()

    async def publish(self, records: Sequence[Record]) -> list[PublishError | None]:
        purged = self._purged
        async with self._order:
            gone = await self._wait_available(purged)
            if gone is not None:
                return [gone] * len(records)
            held: set[tuple[str, bytes | None]] = set()
            results = [self._send(record, held) for record in records]
        self._logs.changed()
        await asyncio.sleep(0)
        return results

    def purge(self) -> None:
        self._purged.set()
        self._purged = asyncio.Event()

    def _send(self, record: Record, held: set[tuple[str, bytes | None]]) -> PublishError | None:
        aggregate = (record.topic, record.key)
        if aggregate in held:
            return PublishError("retriable", "held back: an earlier record of its key was refused")
        error = self._broker.refuse(record)
        if error is None:
            try:
                self._broker.store(record)
            except PublishError as refused:
                error = refused
        if error is not None and record.key is not None:
            held.add(aggregate)
        return error

    async def _wait_available(self, purged: asyncio.Event) -> PublishError | None:
        """Wait out an outage, as a producer without a time limit of its own would."""
        changed = asyncio.Event()
        self._logs.listeners.add(changed)
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT):
                while not self._logs.available and not purged.is_set():
                    changed.clear()
                    await _first(changed, purged)
        except TimeoutError:
            return PublishError("retriable", f"not acknowledged within {PUBLISH_TIMEOUT} s")
        finally:
            self._logs.listeners.discard(changed)
        return PublishError("producer", "purged") if purged.is_set() else None


class MemoryTail:
    """A `Tail` of a memory topic."""

    def __init__(self, logs: Logs, topic: str, since: datetime) -> None:
        self._logs = logs
        self._topic = topic
        self._since = since
        self._next: dict[int, int] = {}
        self._changed = asyncio.Event()
        self._closed = False
        logs.listeners.add(self._changed)

    @property
    def problem(self) -> str | None:
        return None if self._logs.available else "the broker is away"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        while not self._closed:
            self._changed.clear()
            if (record := self._take()) is not None:
                return record
            await self._changed.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._closed = True
        self._logs.listeners.discard(self._changed)
        self._changed.set()

    def _take(self) -> Record | None:
        if not self._logs.available:
            return None
        for number, log in enumerate(self._logs.topic(self._topic).partitions):
            position = self._next.get(number)
            if position is None:
                position = bisect_left(log, self._since, key=lambda record: record.timestamp or self._since)
            if position < len(log):
                self._next[number] = position + 1
                return log[position]
        return None


def _accept(_record: Record) -> PublishError | None:
    return None


async def _first(*events: asyncio.Event) -> None:
    """Wait for whichever happens first."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
