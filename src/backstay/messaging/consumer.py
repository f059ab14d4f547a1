"""A consumer group of a service: its handlers' effects happen once, in order per partition, whatever fails around it.

A member of the group subscribes, gives each partition a lane, and lets the lanes turn records into transactions. It is
never stopped by a broker or a database that is away: it waits, says so in its statistics, and goes on.
"""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from backstay.db import Database, DatabaseError
from backstay.errors import ConfigError
from backstay.messaging.applier import Applier, Counters
from backstay.messaging.broker import Broker, Subscription, SubscriptionStatus
from backstay.messaging.dead_letters import OnParked, dead_letter_topics
from backstay.messaging.delivery import words
from backstay.messaging.event import Event
from backstay.messaging.handlers import SHARED, Handlers, Locks, Shared
from backstay.messaging.inbox import COMPONENT
from backstay.messaging.lane import Lane
from backstay.messaging.marks import Marks
from backstay.messaging.record import Partition, Record
from backstay.messaging.replayer import Replayer
from backstay.metrics import Count

log = logging.getLogger("backstay.messaging")

ATTEMPTS = 5  # tries of a record before it becomes a dead letter
RETRY_WAIT = 0.1  # seconds before the second try, doubled each time, at most 5
CONCURRENCY = 4  # transactions at the same moment, at most
REPLAY_EVERY = 1.0  # seconds between looks for dead letters to replay
RESTART_WAIT = 1.0  # seconds before a part of the consumer that broke begins again
CLOSE_TIMEOUT = 45.0  # seconds to leave the group in order

E = TypeVar("E", bound=Event)
H = TypeVar("H", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ConsumerStatistics:
    """A snapshot, counted since the start.

    handled: events whose effect happened; duplicates: deliveries that the inbox knew; skipped: records of types without
    a handler; dead_letters: records parked; held: those of them that only wait for an earlier one of their key;
    retries: further tries of a failing record; repeats: transactions repeated after a deadlock; outages: transactions
    repeated because something was away; replayed: dead letters replayed; lag: records behind, None = unknown;
    assigned: partitions of this member; reason: why `healthy` is False.
    """

    handled: Count
    duplicates: Count
    skipped: Count
    dead_letters: Count
    retries: Count
    repeats: Count
    outages: Count
    replayed: Count
    held: Count
    lag: int | None
    assigned: tuple[Partition, ...]
    healthy: bool
    reason: str | None


class Consumer:
    """One member of a consumer group; an async context manager that handles events from entry to exit.

    group: the group's name, the inbox is kept per group; db: where effects and inbox live; catch_up: topics whose first
    catching up `caught_up` reports; attempts: tries of a record before it becomes a dead letter; retry_wait: seconds
    before the second try; concurrency: transactions at the same moment; hold_keys: while a record is parked, the later
    ones of its key are parked behind it (False: they go on without it); gather: seconds for which events of all
    partitions gather into one transaction under load, which costs that much latency and saves most of the CPU (0: each
    partition has transactions of its own); it concerns handlers that may share one.
    """

    def __init__(
        self,
        group: str,
        *,
        db: Database,
        broker: Broker | None = None,
        catch_up: Sequence[str] = (),
        attempts: int = ATTEMPTS,
        retry_wait: float = RETRY_WAIT,
        concurrency: int = CONCURRENCY,
        replay_every: float = REPLAY_EVERY,
        hold_keys: bool = True,
        gather: float = 0.0,
    ) -> None:
        if attempts < 1 or concurrency < 1:
            raise ConfigError(f"consumer {group!r}: attempts={attempts}, concurrency={concurrency}: at least 1 each")
        self.group = group
        self._db = db
        self._broker = broker
        self._catch_up = tuple(catch_up)
        self._handlers = Handlers()
        self._gather = gather
        self._counters = Counters()
        self._applier = Applier(
            db,
            group,
            self._counters,
            attempts=attempts,
            retry_wait=retry_wait,
            concurrency=concurrency,
            hold_keys=hold_keys,
            gather=gather,
        )
        self._replayer = Replayer(db, group, self._handlers, self._applier, self._counters, every=replay_every)
        self._marks = Marks(db, group)
        self._lanes: dict[Partition, Lane] = {}
        self._subscription: Subscription | None = None
        self._troubles = {"consumer": "not started"}
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        db.requires(COMPONENT)

    def __repr__(self) -> str:
        return f"Consumer({self.group!r}, topics={self._handlers.topics()}, broker={self._broker!r})"

    def on(self, event: type[E], *, locks: Locks[E] | Shared | None = None) -> Callable[[H], H]:
        """Decorator: this coroutine function handles events of that class, as `(event, tx)` or `(event, tx, envelope)`.

        Without `locks` each event gets a transaction of its own. With `Locks(…)`, or `SHARED` if it locks nothing, many
        events share one.
        """

        def register(handler: H) -> H:
            if self._tasks:
                raise RuntimeError(f"consumer {self.group!r} is running: register handlers before it is entered")
            self._handlers.add(event, _checked(handler), locks)
            return handler

        return register

    def on_batch(self, *events: type[E], locks: Locks[E] | Shared = SHARED) -> Callable[[H], H]:
        """Decorator: this coroutine function handles many events at once, as `(events, tx)` or with `envelopes` third.

        For hot paths that work set by set. It gets up to 500 neighbours of a partition in order, of any of the given
        types, in one transaction. When it fails the batch is halved until the culprit is alone, so it is called again
        with parts. What it locks without `locks` it must lock in one order everywhere.
        """

        def register(handler: H) -> H:
            if self._tasks:
                raise RuntimeError(f"consumer {self.group!r} is running: register handlers before it is entered")
            self._handlers.add_batch(events, _checked(handler), locks)
            return handler

        return register

    def on_parked(self, hook: OnParked) -> None:
        """Call `hook(tx, parked)` in the transaction in which a record becomes a dead letter."""
        self._applier.on_parked(hook)

    @property
    def broker(self) -> Broker | None:
        """The broker it reads from."""
        return self._broker

    async def dead_letter_topics(self) -> set[str]:
        """Return the topics for copies of all records of this group that are in the table of dead letters."""
        return await dead_letter_topics(self._db, self.group)

    @property
    def lacks_broker(self) -> bool:
        """True if no broker has been given yet."""
        return self._broker is None

    def use_broker(self, broker: Broker) -> None:
        """Set the broker; only before entering."""
        if self._tasks:
            raise RuntimeError(f"consumer {self.group!r} is running: its broker cannot change")
        self._broker = broker

    async def __aenter__(self) -> Self:
        broker = self._broker
        if broker is None:
            raise ConfigError(f"consumer {self.group!r} has no broker: pass broker= or call use_broker()")
        missing = set(self._catch_up) - set(self._handlers.topics())
        if not self._handlers.topics() or missing:
            raise ConfigError(f"consumer {self.group!r} has no handler for {', '.join(sorted(missing)) or 'anything'}")
        self._stop.clear()
        self._troubles["consumer"] = "starting"
        works = {"consumer": lambda: self._consume(broker), "marks": self._marks.write, "replayer": self._replayer.run}
        self._tasks = [
            asyncio.create_task(self._supervise(name, work), name=f"{name} of {self.group}")
            for name, work in works.items()
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave in order: no more records, transactions in flight finish, offsets are committed, the group is left."""
        if not self._tasks:
            return
        consuming, *helpers = self._tasks
        self._stop.set()
        for task in helpers:
            task.cancel()
        _, late = await asyncio.wait({consuming}, timeout=CLOSE_TIMEOUT)
        for task in late:
            log.error("consumer.close-timed-out", extra={"group": self.group, "seconds": CLOSE_TIMEOUT})
            task.cancel()
        await asyncio.wait(self._tasks, timeout=1.0)
        with contextlib.suppress(DatabaseError):
            await self._marks.flush()
        self._tasks = []
        self._troubles = {"consumer": "stopped"}

    async def caught_up(self) -> bool:
        """Return whether the group has reached the end of every `catch_up` topic once, in any process.

        False also while the database is away and it was not known before.
        """
        try:
            return await self._marks.caught_up(self._catch_up)
        except DatabaseError:
            return False

    def statistics(self) -> ConsumerStatistics:
        """Return the counts since the start and the present state."""
        status = SubscriptionStatus((), None, None) if self._subscription is None else self._subscription.status()
        troubles = [*self._troubles.values(), status.problem, *(lane.trouble for lane in self._lanes.values())]
        reason = "; ".join(dict.fromkeys(trouble for trouble in troubles if trouble)) or None
        return ConsumerStatistics(
            **asdict(self._counters),
            lag=status.lag,
            assigned=status.assigned,
            healthy=reason is None,
            reason=reason,
        )

    async def _consume(self, broker: Broker) -> None:
        """One membership in the group, from loading what is known to leaving."""
        started = await self._marks.started()
        watch_end = bool(self._catch_up) and not await self._marks.caught_up(self._catch_up)
        subscription = broker.subscribe(
            self.group,
            self._handlers.topics(),
            _Sink(self),
            started=started,
            watch_end=watch_end,
            gather=self._gather,
        )
        self._subscription = subscription
        async with subscription:
            self._troubles.pop("consumer", None)
            await self._stop.wait()

    async def _supervise(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do the work until the consumer stops, again and again if it breaks."""
        while not self._stop.is_set():
            try:
                await work()
            except Exception as error:  # supervised: said, logged, and begun again
                self._troubles[name] = f"the {name} waits: {words(error)}"
                if not isinstance(error, DatabaseError) or not error.transient:
                    log.error("consumer.broke", extra={"group": self.group}, exc_info=error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), RESTART_WAIT)
                if name != "consumer":  # that one says itself when it works again
                    self._troubles.pop(name, None)

    def _lane(self, partition: Partition) -> Lane:
        assert self._subscription is not None
        return Lane(partition, self._handlers, self._applier, self._subscription, self._marks, self._counters)


class _Sink:
    """Sorts what the subscription brings into lanes."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._lanes = consumer._lanes

    def assigned(self, partitions: Sequence[Partition], counts: Mapping[str, int]) -> None:
        self._consumer._marks.count(counts)
        for partition in partitions:
            self._lanes[partition] = self._consumer._lane(partition)

    def deliver(self, partition: Partition, records: Sequence[Record]) -> None:
        if (lane := self._lanes.get(partition)) is not None:
            lane.add(records)

    def reached_end(self, partition: Partition) -> None:
        if partition.topic in self._consumer._catch_up and (lane := self._lanes.get(partition)) is not None:
            lane.reached_end()

    def started(self, partitions: Sequence[Partition]) -> None:
        self._consumer._marks.start(partitions)

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        lanes = [lane for partition in partitions if (lane := self._lanes.pop(partition, None))]
        await asyncio.gather(*(lane.stop() for lane in lanes))


def _checked(handler: Callable[..., Any]) -> Any:
    if not inspect.iscoroutinefunction(handler):
        raise TypeError(f"{handler!r} must be a coroutine function: async def handler(event, tx)")
    return handler
