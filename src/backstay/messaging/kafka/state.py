"""The state that the event loop and a poll thread share about one subscription, and nothing more.

Each number has one writer: `delivered` belongs to the poll thread, `settled`, marks and pauses to the event loop.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from backstay.messaging.broker import SubscriptionStatus
from backstay.messaging.kafka.health import BrokerHealth
from backstay.messaging.record import Partition


@dataclass(slots=True)
class State:
    """Marks and requests for the poll thread, and its reports."""

    stop: threading.Event = field(default_factory=threading.Event)
    room: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    marks: dict[Partition, int] = field(default_factory=dict)  # next offsets to commit
    paused: set[Partition] = field(default_factory=set)  # as the event loop wishes it
    settled: dict[Partition, int] = field(default_factory=dict)
    delivered: dict[Partition, int] = field(default_factory=dict)
    assigned: tuple[Partition, ...] = ()
    broker: BrokerHealth = field(default_factory=BrokerHealth)
    faults: dict[str, str] = field(default_factory=dict)  # topic or partition → what is wrong with it
    lag: int | None = None

    def done(self, partition: Partition, next_offset: int, count: int) -> None:
        with self.lock:
            self.marks[partition] = next_offset
        self.settled[partition] = self.settled.get(partition, 0) + count
        self.room.set()

    def wish(self, partition: Partition, *, paused: bool) -> None:
        with self.lock:
            (self.paused.add if paused else self.paused.discard)(partition)
        self.room.set()

    def outstanding(self) -> int:
        """Records that the event loop still holds, those of paused partitions left out."""
        settled, paused = self.settled, self.paused
        return sum(count - settled.get(p, 0) for p, count in self.delivered.items() if p not in paused)

    def take_marks(self, of: Iterable[Partition] | None = None) -> dict[Partition, int]:
        """Return the marks to commit now, all or those of some partitions; they are ours then."""
        with self.lock:
            wanted = list(self.marks) if of is None else [p for p in of if p in self.marks]
            return {partition: self.marks.pop(partition) for partition in wanted}

    def put_back(self, marks: dict[Partition, int]) -> None:
        """A commit failed: try these again unless something newer is there."""
        with self.lock:
            for partition, offset in marks.items():
                if partition in self.assigned:
                    self.marks.setdefault(partition, offset)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """These partitions are no longer ours."""
        gone = set(partitions)
        with self.lock:
            self.assigned = tuple(partition for partition in self.assigned if partition not in gone)
            self.paused -= gone
            for partition in gone:
                self.marks.pop(partition, None)
                self.delivered.pop(partition, None)
                self.settled.pop(partition, None)
                self.faults.pop(str(partition), None)

    def status(self) -> SubscriptionStatus:
        problem = self.broker.problem
        problems = [problem] if problem else list(self.faults.values())
        return SubscriptionStatus(self.assigned, "; ".join(problems) or None, self.lag)
