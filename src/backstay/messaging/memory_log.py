"""The stored records of the in-memory broker."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from backstay.messaging.record import Partition, Record

PARTITIONS = 6  # of a topic that nobody created


@dataclass(slots=True)
class Topic:
    """The partitions of a topic."""

    partitions: list[list[Record]]
    turn: int = 0  # where the next record without a key goes


@dataclass(slots=True)
class Logs:
    """The stored records, and the waiters for new ones."""

    available: bool = True
    topics: dict[str, Topic] = field(default_factory=dict)
    listeners: set[asyncio.Event] = field(default_factory=set)

    def topic(self, name: str) -> Topic:
        return self.topics.setdefault(name, Topic([[] for _ in range(PARTITIONS)]))

    def of(self, partition: Partition) -> list[Record]:
        return self.topic(partition.topic).partitions[partition.number]

    def counts(self, topics: Sequence[str]) -> dict[str, int]:
        return {name: len(self.topic(name).partitions) for name in topics}

    def changed(self) -> None:
        for listener in self.listeners:
            listener.set()
