"""Deliveries become effects: inbox rows, locks, handlers, and their commit, all in one transaction.

What fails is sorted by whose fault it is. The moment's fault (a deadlock, a database that is away) is repeated for
ever and never counted. The record's fault is tried again alone, a bounded number of times, and then parked.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from backstay import faults
from backstay.db import Database, DatabaseError, Deadlock, SerializationFailure, Transaction
from backstay.messaging.dead_letters import OnParked, hold_back, park
from backstay.messaging.delivery import Delivery, words
from backstay.messaging.handlers import BatchCall, Take
from backstay.messaging.inbox import claim
from backstay.messaging.together import Together
from backstay.telemetry import TraceContext, use

log = logging.getLogger("backstay.messaging")

MAX_WAIT = 5.0  # seconds between two tries, at most


class Patience(Protocol):
    """The wait of a partition between two tries; `reason` is set while the failure is transient."""

    async def rest(self, seconds: float, reason: str | None) -> None: ...

    def recovered(self) -> None:
        """A transaction went through."""


@dataclass(slots=True)
class Counters:
    """Counts since the start; see ConsumerStatistics."""

    handled: int = 0
    duplicates: int = 0
    skipped: int = 0
    dead_letters: int = 0
    retries: int = 0
    repeats: int = 0
    outages: int = 0
    replayed: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A transaction was rolled back; index: of the delivery that was being handled, None if it was none of them."""

    index: int | None
    error: Exception


@dataclass(slots=True)
class _Progress:
    """The progress of a transaction: whether its deliveries are claimed, and which one is being handled."""

    claimed: bool = False
    index: int | None = None


class Applier:
    """Applies deliveries of one group.

    attempts: tries of a record before it is parked; retry_wait: seconds before the second, doubled each time;
    concurrency: transactions at the same moment; hold_keys: a parked record holds back the later ones of its key;
    gather: seconds between two transactions of several partitions, 0: each partition has its own.
    """

    def __init__(
        self,
        db: Database,
        group: str,
        counters: Counters,
        *,
        attempts: int,
        retry_wait: float,
        concurrency: int,
        hold_keys: bool = True,
        gather: float = 0.0,
    ) -> None:
        self._db = db
        self._group = group
        self._counters = counters
        self._attempts = attempts
        self._retry_wait = retry_wait
        self._hold_keys = hold_keys
        self._on_parked: OnParked | None = None
        self._gate = asyncio.Semaphore(concurrency)
        self._together = Together(self._once, gather) if gather > 0 else None
        self._before_commit = f"{group}.consume.before-commit"
        self._after_commit = f"{group}.consume.after-commit"

    def on_parked(self, hook: OnParked) -> None:
        """Call the hook in the transaction in which a record is parked."""
        self._on_parked = hook

    async def apply(self, deliveries: Sequence[Delivery], patience: Patience) -> None:
        """Apply these in order; returns when each has had its effect, or is parked."""
        together = self._together
        if together is not None and _may_join(deliveries) and await together.take(deliveries):
            patience.recovered()
            return
        runs = [list(deliveries)]
        while runs:
            run = runs.pop()
            failure = await self._attempt(run, patience)
            if failure is None:
                continue
            if len(run) > 1:
                runs.extend(reversed(_split(run, failure.index)))
            else:
                await self._insist(run[0], failure.error, patience)

    async def handle(self, tx: Transaction, deliveries: Sequence[Delivery], progress: _Progress | None = None) -> None:
        """Take the locks of all, then call the handlers in order; neighbours go to a batch handler together."""
        progress = progress or _Progress()
        for take, keys in _locks(deliveries, progress):
            await take(tx, keys)
        index = 0
        while index < len(deliveries):
            batch = _batch_at(deliveries, index)
            if len(batch) > 1:
                progress.index = None  # whichever of them it is
                await _handle_batch(tx, batch)
            else:
                progress.index = index
                await self._handle_one(tx, deliveries[index])
            index += len(batch)
        progress.index = None

    async def _attempt(self, run: list[Delivery], patience: Patience) -> Failure | None:
        """One transaction, repeated as long as only the moment is at fault."""
        tries = 0
        while True:
            fresh, progress = _first_of_each(run), _Progress()
            try:
                handled = await self._transact(fresh, progress)
            except Exception as error:  # noqa: BLE001  # sorted right here
                # Before the inbox was written no record has had a part in it.
                if progress.claimed and not is_of_the_moment(error):
                    found = None if progress.index is None else run.index(fresh[progress.index])
                    return Failure(found, error)
                tries += 1
                await self._wait_out(error, tries, patience)
                continue
            self._count(run, handled)
            patience.recovered()
            await faults.point(self._after_commit)
            return None

    async def _once(self, run: list[Delivery]) -> None:
        """One transaction, tried once."""
        try:
            handled = await self._transact(_first_of_each(run), _Progress())
        except (Deadlock, SerializationFailure):
            self._counters.repeats += 1
            raise
        self._count(run, handled)
        await faults.point(self._after_commit)

    async def _transact(self, fresh: list[Delivery], progress: _Progress) -> list[Delivery]:
        async with self._gate, self._db.transaction() as tx:
            taken, held = await claim(tx, self._group, [delivery.id for delivery in fresh])
            progress.claimed = True
            fresh[:] = [delivery for delivery in fresh if delivery.id in taken]
            if self._hold_keys:
                await hold_back(tx, self._group, fresh, look=held)
            await self.handle(tx, fresh, progress)
            await faults.point(self._before_commit)
        return fresh

    async def _handle_one(self, tx: Transaction, delivery: Delivery) -> None:
        registration, envelope, event = delivery.registration, delivery.envelope, delivery.event
        if delivery.fault is not None or delivery.held or registration is None or envelope is None or event is None:
            parked = await park(tx, self._group, delivery, holds=self._hold_keys)
            if self._on_parked is not None:
                await self._on_parked(tx, parked)
            return
        with use(TraceContext.parse(envelope.traceparent)):
            await registration.call(event, tx, envelope)

    async def _insist(self, delivery: Delivery, error: Exception, patience: Patience) -> None:
        """Try a failed delivery again where it is, then park it."""
        for attempt in range(1, self._attempts):
            self._counters.retries += 1
            delivery.attempts = attempt + 1
            self._log_failure(delivery, error, "consumer.retry")
            await patience.rest(self._wait(attempt), None)
            failure = await self._attempt([delivery], patience)
            if failure is None:
                return
            error = failure.error
        delivery.fault = error
        self._log_failure(delivery, error, "consumer.parked")
        while (failure := await self._attempt([delivery], patience)) is not None:
            # Not even parking works: that is nothing a record could be blamed for.
            log.error("consumer.parking-failed", extra={"group": self._group, "error": words(failure.error)})
            await patience.rest(MAX_WAIT, f"a dead letter cannot be stored: {words(failure.error)}")

    async def _wait_out(self, error: Exception, tries: int, patience: Patience) -> None:
        if isinstance(error, Deadlock | SerializationFailure):
            self._counters.repeats += 1
            await patience.rest(random.uniform(0.0, min(0.01 * 2**tries, MAX_WAIT)), None)  # noqa: S311
            return
        self._counters.outages += 1
        if tries == 1:
            log.warning("consumer.waiting", extra={"group": self._group, "error": words(error)})
        await patience.rest(self._wait(tries), words(error))

    def _wait(self, tries: int) -> float:
        return float(min(self._retry_wait * 2 ** min(tries - 1, 10), MAX_WAIT) * random.uniform(0.75, 1.25))  # noqa: S311

    def _count(self, run: list[Delivery], handled: list[Delivery]) -> None:
        held = sum(delivery.held and delivery.fault is None for delivery in handled)
        parked = held + sum(delivery.fault is not None for delivery in handled)
        self._counters.held += held
        self._counters.handled += len(handled) - parked
        self._counters.dead_letters += parked
        self._counters.duplicates += len(run) - len(handled)

    def _log_failure(self, delivery: Delivery, error: Exception, what: str) -> None:
        record = delivery.record
        place = f"{record.topic}/{record.partition}@{record.offset}"
        extra = {"group": self._group, "event_id": str(delivery.id), "place": place, "attempt": delivery.attempts}
        log.warning(what, extra={**extra, "error": words(error)}, exc_info=error if what == "consumer.parked" else None)


def is_of_the_moment(error: Exception) -> bool:
    """Return whether the same record may well succeed later: nothing is wrong with it."""
    if isinstance(error, DatabaseError):
        return error.transient
    return isinstance(error, ConnectionError | TimeoutError | faults.Injected)


def _may_join(deliveries: Sequence[Delivery]) -> bool:
    return all(delivery.fault is None and delivery.may_share for delivery in deliveries)


def _locks(deliveries: Sequence[Delivery], progress: _Progress) -> list[tuple[Take, list[str]]]:
    """Return the locks of all these handlers by kind; kinds in one order everywhere, keys sorted."""
    takes: dict[int, Take] = {}
    keys: dict[int, set[str]] = {}
    for index, delivery in enumerate(deliveries):
        registration = delivery.registration
        if delivery.fault is None and not delivery.held and registration is not None and registration.locks is not None:
            progress.index = index
            takes[registration.order] = registration.locks.take
            keys.setdefault(registration.order, set()).update(registration.locks.keys(delivery.event))
    progress.index = None
    return [(takes[order], sorted(keys[order])) for order in sorted(takes)]


def _batch_at(deliveries: Sequence[Delivery], start: int) -> Sequence[Delivery]:
    """Return the deliveries from there on that one batch handler takes together; one alone if there is none."""
    batch = _batch_handler(deliveries[start])
    end = start + 1
    while batch is not None and end < len(deliveries) and _batch_handler(deliveries[end]) is batch:
        end += 1
    return deliveries[start:end]


def _batch_handler(delivery: Delivery) -> BatchCall | None:
    registration = delivery.registration
    return None if registration is None or delivery.fault is not None or delivery.held else registration.batch


async def _handle_batch(tx: Transaction, deliveries: Sequence[Delivery]) -> None:
    call = _batch_handler(deliveries[0])
    assert call is not None, "only called for a batch"
    events = [delivery.event for delivery in deliveries if delivery.event is not None]
    await call(events, tx, [delivery.envelope for delivery in deliveries if delivery.envelope is not None])


def _first_of_each(run: Sequence[Delivery]) -> list[Delivery]:
    """A batch may hold an event twice: the first one counts."""
    first: dict[UUID, Delivery] = {}
    for delivery in run:
        first.setdefault(delivery.id, delivery)
    return list(first.values())


def _split(run: list[Delivery], index: int | None) -> list[list[Delivery]]:
    """Split a failed run into the part before the culprit, the culprit, and the rest; into halves if it is unknown."""
    if index is None:
        middle = len(run) // 2
        return [run[:middle], run[middle:]]
    return [part for part in (run[:index], [run[index]], run[index + 1 :]) if part]
