"""The broker port: what the platform needs of a log, and nothing else.

Kafka and the in-memory broker both pass `tests/conformance/test_broker.py`. A `Subscription` delivers to a `Sink`;
every method of a sink is called on the event loop, in the order in which things happened at the broker.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from backstay.messaging.errors import PublishError
from backstay.messaging.record import Partition, Record

PUBLISH_TIMEOUT = 30.0  # seconds until a batch that nobody acknowledged is given up
BATCH = 500  # records a subscription hands over at a time, at most


class Producer(Protocol):
    """Publishes batches; an async context manager."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def publish(self, records: Sequence[Record]) -> list[PublishError | None]:
        """Send a batch and wait until each record is settled: None where all replicas acknowledged it.

        Calls may overlap; records of one key keep the order of the calls. A record that is refused at once holds back
        the later ones of its key in the batch (kind `retriable`).
        """
        ...

    def purge(self) -> None:
        """Give up all that is not acknowledged: those records end as `producer`, and a fresh producer takes over."""
        ...


class TransactionalProducer(Protocol):
    """Publishes batches, each visible as a whole or not at all to readers of what is committed.

    An async context manager. Entering it fences whoever had its id before, and ends their transaction.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def marks(self) -> frozenset[str]:
        """Return the marks of the transactions that this id had committed when it was opened, the last one among them.

        Opening waits for the transaction before it. One that this producer commits itself may still be missing here:
        a broker answers a commit first and writes its offsets afterwards.
        """
        ...

    async def publish(self, records: Sequence[Record], mark: str) -> list[PublishError | None]:
        """One transaction of these records and this mark, one at a time. All None: it is committed.

        Otherwise it was aborted and nothing of it counts; records without a fault of their own end as `producer`.
        Fenced: somebody newer has the id; TransactionLost: nobody knows. After either this producer is of no use.
        """
        ...

    def purge(self) -> None:
        """Give up what is on its way; this producer is of no use any more."""
        ...


class Sink(Protocol):
    """The receiving side of a subscription."""

    def assigned(self, partitions: Sequence[Partition], counts: Mapping[str, int]) -> None:
        """Take over these partitions; `counts` has the number of partitions of each topic."""
        ...

    def deliver(self, partition: Partition, records: Sequence[Record]) -> None:
        """The next records of a partition, in order."""
        ...

    def reached_end(self, partition: Partition) -> None:
        """All that lay in the partition when it was assigned has been delivered."""
        ...

    def started(self, partitions: Sequence[Partition]) -> None:
        """The group's first offset in these partitions is committed."""
        ...

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """Stop work on these partitions; returns when nothing of them is in flight any more."""
        ...


@dataclass(frozen=True, slots=True)
class SubscriptionStatus:
    """A snapshot. problem: why records may not arrive, None if all is well; lag: records behind, None = unknown."""

    assigned: tuple[Partition, ...]
    problem: str | None
    lag: int | None


class Subscription(Protocol):
    """One member of a consumer group; an async context manager that delivers from entry to exit.

    It is never stopped by a broker that is away: it waits, says so in its status, and goes on.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def done(self, partition: Partition, next_offset: int, count: int) -> None:
        """`count` more records of the partition are finished; everything below `next_offset` may be committed."""
        ...

    def pause(self, partition: Partition) -> None:
        """Fetch nothing more of this partition until `resume`."""
        ...

    def resume(self, partition: Partition) -> None:
        """Take records of these partitions again."""

    def status(self) -> SubscriptionStatus:
        """Return the present state: partitions, lag, and the problem if there is one."""


class Tail(Protocol):
    """Every record of a topic since a moment, without a group; survives outages. Close it with `aclose()`."""

    @property
    def problem(self) -> str | None:
        """Why records may not arrive; None if all is well."""
        ...

    def __aiter__(self) -> AsyncIterator[Record]: ...

    async def __anext__(self) -> Record: ...

    async def aclose(self) -> None:
        """Stop reading and let go of the connection."""


class Broker(Protocol):
    """A Kafka cluster or something that behaves like one."""

    async def create_topics(self, topics: Mapping[str, int]) -> None:
        """Create the topics (name → partitions) that do not exist: no time limit on retention, no compaction."""
        ...

    def producer(self) -> Producer:
        """Return a producer of its own connection; an async context manager."""

    def transactional(self, ident: str) -> TransactionalProducer:
        """Return a producer whose batches are transactions; ConfigError where the broker has none."""
        ...

    def subscribe(
        self,
        group: str,
        topics: Sequence[str],
        sink: Sink,
        *,
        started: Collection[Partition] = (),
        watch_end: bool = False,
        gather: float = 0.0,
    ) -> Subscription:
        """Join a group. It begins at the beginning in partitions where it never committed.

        `started` names those where it did: there a missing offset is a problem, never a silent jump. `watch_end` asks
        for `Sink.reached_end`. `gather` allows the broker to hold records back for so many seconds, so that
        more come at once.
        """
        ...

    def tail(self, topic: str, since: datetime) -> Tail:
        """Return all records since that time (aware), or all of them if the broker cannot look up times."""
        ...

    async def ping(self, timeout: float = 1.0) -> None:
        """Return if the broker answers within `timeout` seconds, else raise BrokerUnavailable."""
        ...

    async def aclose(self) -> None:
        """Let go of what the broker object itself holds; what it gave out is closed by its owner."""
        ...
