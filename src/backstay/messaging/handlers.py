"""The events of a consumer: the handler of each type, and the locks that let it share a transaction.

A handler alone in its transaction needs no declaration. One that may share it names the keys it locks, so that the
runtime can take those of the whole batch first, united and sorted: then two batches never wait for each other in a
circle.
"""

import enum
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from backstay.db import Transaction
from backstay.messaging.envelope import Envelope
from backstay.messaging.event import Event, event_spec

E = TypeVar("E", bound=Event)
Handler = Callable[[E, Transaction], Awaitable[None]] | Callable[[E, Transaction, Envelope], Awaitable[None]]
BatchHandler = (
    Callable[[Sequence[E], Transaction], Awaitable[None]]
    | Callable[[Sequence[E], Transaction, Sequence[Envelope]], Awaitable[None]]
)
BatchCall = Callable[[list[Event], Transaction, list[Envelope]], Awaitable[None]]
Take = Callable[[Transaction, list[str]], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Locks(Generic[E]):
    """The locks that a handler takes.

    keys: the keys of one event; take: locks all those keys, given sorted and once each. Events whose handlers use the
    same `take` are locked together.
    """

    keys: Callable[[E], Iterable[str]]
    take: Take


class Shared(enum.Enum):
    """`SHARED`: the handler locks nothing that another could wait for, and may share a transaction."""

    SHARED = "shared"


SHARED = Shared.SHARED


@dataclass(frozen=True, slots=True)
class Registration:
    """One event type and what is done with it: `call` for each event, or `batch` for many at once."""

    event: type[Event]
    topic: str
    type: str
    decode: Callable[[bytes], Event]
    call: Callable[[Event, Transaction, Envelope], Awaitable[None]]
    locks: Locks[Any] | None
    order: int  # several kinds of locks are taken in this order, by every batch alike
    may_share: bool
    batch: BatchCall | None = None


class Handlers:
    """The handlers of one consumer, at most one for a type."""

    def __init__(self) -> None:
        self._by_type: dict[bytes, Registration] = {}
        self._takes: list[Take] = []

    def add(self, event: type[E], handler: Handler[E], locks: Locks[E] | Shared | None) -> None:
        """Register; ValueError if the type has a handler."""
        self._register(event, _with_envelope(handler, "event"), locks, may_share=locks is not None)

    def add_batch(self, events: Iterable[type[E]], handler: BatchHandler[E], locks: Locks[E] | Shared) -> None:
        """Register one handler for batches that may hold all these types; ValueError if a type has a handler."""
        batch = _with_envelope(handler, "events")

        async def alone(event: Event, tx: Transaction, envelope: Envelope) -> None:
            await batch([event], tx, [envelope])

        for event in events:
            self._register(event, alone, locks, may_share=True, batch=batch)

    def _register(
        self, event: type[E], call: Any, locks: Locks[E] | Shared | None, *, may_share: bool, batch: Any = None
    ) -> None:
        spec = event_spec(event)
        name = spec.type.encode()
        if name in self._by_type:
            raise ValueError(f"{spec.type!r} has a handler already: one consumer group handles a type once")
        self._by_type[name] = Registration(
            event,
            spec.topic,
            spec.type,
            msgspec.json.Decoder(event).decode,
            call,
            locks if isinstance(locks, Locks) else None,
            self._order(locks),
            may_share,
            batch,
        )

    @property
    def works_in_batches(self) -> bool:
        """True if all of it is handled in batches, so that large ones are worth while."""
        return all(registration.batch is not None for registration in self._by_type.values())

    def _order(self, locks: Locks[E] | Shared | None) -> int:
        if not isinstance(locks, Locks):
            return -1
        if locks.take not in self._takes:
            self._takes.append(locks.take)
        return self._takes.index(locks.take)

    def find(self, type_: bytes) -> Registration | None:
        """Return the registration of a type, as it is written in `ce_type`."""
        return self._by_type.get(type_)

    def topics(self) -> list[str]:
        """Return the topics that have to be read."""
        return sorted({registration.topic for registration in self._by_type.values()})


def _with_envelope(handler: Any, what: str) -> Any:
    """Return the handler as a function of event, transaction and envelope (or many of them)."""
    parameters = inspect.signature(handler).parameters.values()
    places = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    if len(places) >= 3 or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return handler
    if len(places) < 2:
        raise TypeError(f"{handler!r} must take ({what}, tx) or ({what}, tx, envelope{what[5:]})")
    return lambda event, tx, _envelope: handler(event, tx)
