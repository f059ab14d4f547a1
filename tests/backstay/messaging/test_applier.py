"""Who is at fault decides what happens: shown on a database that fails on demand."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from backstay.db import (
    Aborted,
    DatabaseError,
    Deadlock,
    LockTimeout,
    OutcomeUnknown,
    SerializationFailure,
    StatementTimeout,
    Unavailable,
    UniqueViolation,
)
from backstay.faults import Injected
from backstay.messaging import Event, Locks, Record
from backstay.messaging.applier import Applier, Counters, is_of_the_moment
from backstay.messaging.delivery import Delivery, read
from backstay.messaging.envelope import Envelope
from backstay.messaging.handlers import SHARED, Handlers
from backstay.messaging.inbox import sql


class Made(Event, topic="t", type="it.made", key="key"):
    key: str
    number: int


class FakeTransaction:
    """Collects effects until the commit."""

    def __init__(self, database: "FakeDatabase") -> None:
        self._database = database
        self.claimed: set[UUID] = set()
        self.effects: list[object] = []

    async def fetch(self, statement: str, group: str, ids: list[Any], *keys: Any) -> list[dict[str, Any]]:
        if statement == sql.held_keys:
            return [{"topic": "t", "key": key} for key in keys[0] if key in self._database.held]
        assert statement == sql.claim
        self._database.fail("claim")
        fresh = [event_id for event_id in ids if event_id not in self._database.inbox]
        self.claimed.update(fresh)
        return [{"event_id": event_id, "held": bool(self._database.held)} for event_id in fresh]

    async def execute(self, statement: str, *args: Any) -> None:
        assert statement == sql.park
        self._database.fail("park")
        self.effects.append(("parked", args[11], args[12]))


class FakeDatabase:
    """Fails at named points with the errors it was given, then works."""

    def __init__(self) -> None:
        self.inbox: set[UUID] = set()
        self.held: set[bytes] = set()
        self.effects: list[object] = []
        self.transactions = 0
        self.errors: dict[str, Iterator[Exception]] = {}

    def fail(self, point: str) -> None:
        error = next(self.errors.get(point, iter(())), None)
        if error is not None:
            raise error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[FakeTransaction]:
        self.transactions += 1
        self.fail("begin")
        tx = FakeTransaction(self)
        yield tx
        self.fail("commit")
        self.inbox |= tx.claimed
        self.effects += tx.effects


class Waits:
    """A `Patience` that never waits and remembers what for."""

    def __init__(self) -> None:
        self.reasons: list[str | None] = []
        self.recoveries = 0

    async def rest(self, seconds: float, reason: str | None) -> None:
        assert 0 <= seconds <= 6.5
        self.reasons.append(reason)

    def recovered(self) -> None:
        self.recoveries += 1


class Desk:
    """An applier with everything around it."""

    def __init__(self, attempts: int = 3) -> None:
        self.db = FakeDatabase()
        self.counters = Counters()
        self.waits = Waits()
        self.handlers = Handlers()
        self.failing: dict[int, Iterator[Exception]] = {}
        self.handlers.add(Made, self.handle, SHARED)
        self.applier = Applier(self.db, "g", self.counters, attempts=attempts, retry_wait=0.1, concurrency=2)  # type: ignore[arg-type]

    async def handle(self, event: Made, tx: Any) -> None:
        error = next(self.failing.get(event.number, iter(())), None)
        if error is not None:
            raise error
        tx.effects.append(event.number)

    def deliveries(self, *numbers: int) -> list[Delivery]:
        return [delivery(self.handlers, number) for number in numbers]

    async def apply(self, *numbers: int) -> list[object]:
        await self.applier.apply(self.deliveries(*numbers), self.waits)
        return self.db.effects


def delivery(handlers: Handlers, number: int) -> Delivery:
    data = b'{"key":"k","number":%d}' % number
    record = Envelope.record_for(topic="t", key="k", id=uuid4(), type="it.made", source="/s", data=data)
    found = read(Record("t", b"k", data, record.headers, 0, number), handlers)
    assert found is not None
    return found


async def test_a_batch_is_one_transaction() -> None:
    """When all goes well, nothing is paid per event but its handler."""
    desk = Desk()

    assert await desk.apply(1, 2, 3) == [1, 2, 3]
    assert (desk.db.transactions, desk.counters.handled, desk.waits.recoveries) == (1, 3, 1)


async def test_a_culprit_costs_its_neighbours_one_transaction_per_side() -> None:
    """What came before shares one transaction, the culprit has its own, the rest shares another."""
    desk = Desk(attempts=2)
    desk.failing[3] = iter([ValueError("a"), ValueError("b"), ValueError("c")])

    assert await desk.apply(1, 2, 3, 4, 5) == [1, 2, ("parked", "ValueError: c", 2), 4, 5]
    # all, before, alone twice, parking, after
    assert desk.db.transactions == 6
    assert (desk.counters.handled, desk.counters.dead_letters, desk.counters.retries) == (4, 1, 1)


async def test_a_failure_that_nobody_owns_is_looked_for_by_halves() -> None:
    """A commit that is refused names no culprit: the batch is halved."""
    desk = Desk()
    desk.db.errors["commit"] = iter([Aborted()])

    assert await desk.apply(1, 2, 3) == [1, 2, 3]
    assert desk.db.transactions == 3


async def test_a_fault_in_the_keys_belongs_to_its_event() -> None:
    """A handler's `keys` that fails for one event parks that event alone."""
    desk = Desk(attempts=1)

    async def take(tx: Any, keys: list[str]) -> None: ...

    class Locked(Event, topic="t", type="it.locked", key="key"):
        key: str

    async def handle(event: Locked, tx: Any) -> None: ...

    desk.handlers.add(Locked, handle, Locks(keys=lambda event: [str(1 // (event.key != "bad"))], take=take))
    headers = Envelope.record_for(topic="t", key="k", id=uuid4(), type="it.locked", source="/s", data=b"").headers
    bad = read(Record("t", b"k", b'{"key":"bad"}', headers, 0, 0), desk.handlers)
    assert bad is not None
    await desk.applier.apply([*desk.deliveries(1), bad, *desk.deliveries(2)], desk.waits)

    assert desk.db.effects[0] == 1
    assert desk.db.effects[2] == 2
    assert "ZeroDivisionError" in str(desk.db.effects[1])


@pytest.mark.parametrize("point", ["begin", "claim", "commit"])
@pytest.mark.parametrize("error", [Unavailable("x"), Deadlock("x"), OutcomeUnknown(), StatementTimeout("x")], ids=repr)
async def test_faults_of_the_moment_are_repeated_whole(point: str, error: Exception) -> None:
    """More of them than attempts: nobody is parked, and the batch stays together."""
    desk = Desk(attempts=1)
    desk.db.errors[point] = iter([error] * 7)

    assert await desk.apply(1, 2) == [1, 2]
    assert desk.db.transactions == 8
    assert desk.counters.dead_letters == desk.counters.retries == 0
    assert desk.counters.repeats + desk.counters.outages == 7


@pytest.mark.parametrize("point", ["begin", "claim"])
async def test_no_record_is_blamed_before_it_had_a_part(point: str) -> None:
    """A refused login, a missing inbox table: whatever it is, it comes before any record."""
    desk = Desk(attempts=1)
    desk.db.errors[point] = iter([DatabaseError("password authentication failed")] * 3)

    assert await desk.apply(1) == [1]
    assert desk.waits.reasons == ["DatabaseError: password authentication failed"] * 3


async def test_a_dead_letter_that_cannot_be_stored_is_not_forgotten() -> None:
    """Parking is repeated until it works, and said meanwhile."""
    desk = Desk(attempts=1)
    desk.failing[1] = iter([KeyError("sku")])
    desk.db.errors["park"] = iter([DatabaseError("no space"), Unavailable("gone")])

    assert await desk.apply(1) == [("parked", "KeyError: 'sku'", 1)]
    assert any("cannot be stored" in (reason or "") for reason in desk.waits.reasons)


async def test_what_another_member_handled_is_a_duplicate() -> None:
    """The inbox decides, also in the middle of a batch."""
    desk = Desk()
    deliveries = desk.deliveries(1, 2, 3)
    desk.db.inbox.add(deliveries[1].id)
    await desk.applier.apply(deliveries, desk.waits)

    assert desk.db.effects == [1, 3]
    assert (desk.counters.handled, desk.counters.duplicates) == (2, 1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Unavailable("x"), True),
        (Deadlock("x"), True),
        (SerializationFailure("x"), True),
        (LockTimeout("x"), True),
        (StatementTimeout("x"), True),
        (ConnectionResetError("x"), True),
        (TimeoutError("x"), True),
        (Injected("x"), True),
        (UniqueViolation("x"), False),
        (Aborted(), False),
        (ValueError("x"), False),
    ],
    ids=repr,
)
def test_faults_of_the_moment(error: Exception, expected: bool) -> None:
    """What may pass by itself is never held against a record."""
    assert is_of_the_moment(error) is expected


class Batched(Desk):
    """A desk whose handler takes batches."""

    def __init__(self) -> None:
        super().__init__(attempts=2)
        self.handlers = Handlers()
        self.calls: list[list[int]] = []
        self.handlers.add_batch([Made], self.handle_all, SHARED)

    async def handle_all(self, events: Any, tx: Any, envelopes: Any) -> None:
        assert len(events) == len(envelopes)
        self.calls.append([event.number for event in events])
        for event in events:
            await self.handle(event, tx)


async def test_a_batch_handler_gets_neighbours_together() -> None:
    """One call, one transaction, in order."""
    desk = Batched()

    assert await desk.apply(1, 2, 3) == [1, 2, 3]
    assert (desk.calls, desk.db.transactions, desk.counters.handled) == ([[1, 2, 3]], 1, 3)


async def test_the_culprit_of_a_batch_is_found_by_halves() -> None:
    """It alone is tried again and parked, where it stands; what was handled before it stays so."""
    desk = Batched()
    desk.failing[5] = iter([ValueError("bad")] * 99)

    effects = await desk.apply(*range(8))

    assert [effect if isinstance(effect, int) else "parked" for effect in effects] == [0, 1, 2, 3, 4, "parked", 6, 7]
    assert desk.calls[:4] == [list(range(8)), [0, 1, 2, 3], [4, 5, 6, 7], [4, 5]]
    assert desk.counters.dead_letters == 1


async def test_a_batch_skips_what_was_handled_before() -> None:
    """The handler sees only what is new to the inbox."""
    desk = Batched()
    one, two, three = desk.deliveries(1, 2, 3)
    await desk.applier.apply([two], desk.waits)
    await desk.applier.apply([one, two, three, one], desk.waits)

    assert desk.calls == [[2], [1, 3]]
    assert (desk.counters.handled, desk.counters.duplicates) == (3, 2)
