"""Consumer groups of the in-memory broker: members, an assignment that moves as little as possible, and offsets.

A partition is handed over only after its old owner has finished what was in flight and its offset is committed.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from backstay.messaging.broker import BATCH, Sink, SubscriptionStatus
from backstay.messaging.memory_log import Logs
from backstay.messaging.record import Partition

OUTSTANDING = 8 * BATCH  # records delivered and not yet done, at most


@dataclass(slots=True)
class Group:
    """One consumer group: its members in the order they joined, and what it committed."""

    members: list["MemorySubscription"] = field(default_factory=list)
    committed: dict[Partition, int] = field(default_factory=dict)
    moving: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def rebalance(self) -> None:
        """Give every partition to exactly one member, first taking away, then handing out."""
        async with self.moving:
            target = self._target()
            for member in self.members:
                await member.give_up([owned for owned in member.owned if owned not in target[member]])
            for member in self.members:
                member.take([partition for partition in target[member] if partition not in member.owned])

    def _target(self) -> dict["MemorySubscription", list[Partition]]:
        wanted = sorted({partition for member in self.members for partition in member.wanted()})
        target: dict[MemorySubscription, list[Partition]] = {member: [] for member in self.members}
        share = -(-len(wanted) // max(1, len(self.members)))
        left = []
        for partition in wanted:
            owner = next((member for member in self.members if partition in member.owned), None)
            if owner is not None and len(target[owner]) < share:
                target[owner].append(partition)
            else:
                left.append(partition)
        for partition in left:
            fitting = [member for member in self.members if partition.topic in member.topics]
            target[min(fitting, key=lambda member: len(target[member]))].append(partition)
        return target


class MemorySubscription:
    """A `Subscription` to a memory broker."""

    def __init__(
        self,
        logs: Logs,
        group: Group,
        topics: Sequence[str],
        sink: Sink,
        started: frozenset[Partition],
        *,
        watch_end: bool,
    ) -> None:
        self.topics = tuple(topics)
        self.owned: dict[Partition, int] = {}  # partition → position of the next record to deliver
        self._logs = logs
        self._group = group
        self._sink = sink
        self._started = started
        self._watch_end = watch_end
        self._ends: dict[Partition, int] = {}
        self._outstanding: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._lost: set[Partition] = set()  # the group's offset is missing there
        self._leaving: set[Partition] = set()
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._logs.listeners.add(self._wake)
        self._pump = asyncio.create_task(self._run(), name="memory-subscription")
        self._group.members.append(self)
        await self._group.rebalance()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self not in self._group.members:
            return
        async with self._group.moving:
            await self.give_up(list(self.owned))
            self._group.members.remove(self)
        self._logs.listeners.discard(self._wake)
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait({self._pump})
        await self._group.rebalance()

    def done(self, partition: Partition, next_offset: int, count: int) -> None:
        if partition not in self.owned:
            return
        self._outstanding[partition] -= count
        self._group.committed[partition] = next_offset
        if partition not in self._started:
            self._started |= {partition}
            self._sink.started([partition])
        self._wake.set()

    def pause(self, partition: Partition) -> None:
        self._paused.add(partition)

    def resume(self, partition: Partition) -> None:
        self._paused.discard(partition)
        self._wake.set()

    def status(self) -> SubscriptionStatus:
        lag = sum(len(self._logs.of(p)) - self._group.committed.get(p, 0) for p in self.owned)
        return SubscriptionStatus(tuple(self.owned), self._problem(), lag)

    def wanted(self) -> list[Partition]:
        counts = self._logs.counts(self.topics)
        return [Partition(topic, number) for topic, count in counts.items() for number in range(count)]

    async def give_up(self, partitions: Sequence[Partition]) -> None:
        """Stop delivering these and wait for what is in flight."""
        if not partitions:
            return
        held = set(partitions)
        self._leaving |= held
        await self._sink.revoked(partitions)
        for partition in partitions:
            del self.owned[partition]
            self._ends.pop(partition, None)
        for marks in (self._paused, self._lost, self._leaving):
            marks.difference_update(held)

    def take(self, partitions: Sequence[Partition]) -> None:
        """Begin to deliver these where the group stands."""
        if not partitions:
            return
        self._sink.assigned(partitions, self._logs.counts(self.topics))
        for partition in partitions:
            self._outstanding[partition] = 0
            self.owned[partition] = self._group.committed.get(partition, 0)
            if partition in self._started and partition not in self._group.committed:
                self._lost.add(partition)
            elif self._watch_end:
                self._ends[partition] = len(self._logs.of(partition))
        self._wake.set()

    def _problem(self) -> str | None:
        if not self._logs.available:
            return "the broker is away"
        lost = sorted(self._lost & set(self.owned))
        return f"the group's offset is missing in {', '.join(map(str, lost))} though it started there" if lost else None

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            if not (self._logs.available and self._deliver()):
                await self._wake.wait()
            await asyncio.sleep(0)

    def _deliver(self) -> bool:
        moved = False
        for partition, position in list(self.owned.items()):
            if partition in self._paused | self._lost | self._leaving:
                continue
            room = OUTSTANDING - sum(self._outstanding.values())
            records = self._logs.of(partition)[position : position + min(BATCH, room)] if room > 0 else []
            if records:
                self.owned[partition] = position + len(records)
                self._outstanding[partition] += len(records)
                self._sink.deliver(partition, records)
                moved = True
            end = self._ends.get(partition)
            if end is not None and self.owned[partition] >= end:
                del self._ends[partition]
                self._sink.reached_end(partition)
        return moved
