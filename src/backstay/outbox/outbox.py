"""Appending: the event is written on the connection, and in the transaction, of the state it belongs to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

import msgspec

from backstay.db import Database, Transaction, UniqueViolation
from backstay.messaging import Broker, Event, event_spec
from backstay.outbox.errors import UnusableEvent, VersionConflict
from backstay.outbox.options import RelayOptions
from backstay.outbox.relay import Relay
from backstay.outbox.rows import OutboxRows, add, current_trace, encode_events
from backstay.outbox.store import COMPONENT, VERSION_INDEX, PostgresStore, sql


class Outbox:
    """The outbox of one database. `source` is what events say they come from (`/service/<database>`)."""

    def __init__(self, db: Database, *, source: str | None = None) -> None:
        self.source = source or f"/service/{db.name}"
        self._db = db
        self._nudges: list[Callable[[], None]] = []
        db.requires(COMPONENT)

    async def append(self, tx: Transaction, *events: Event, version: int | None = None) -> None:
        """Write events in the transaction of their state, in one round trip; their relay is woken by its commit.

        Append after the aggregate's row is locked or version-checked: the order of the inserts is the order of the
        events. UnusableEvent names an event that can't be written. `version` is the aggregate's after this change;
        VersionConflict: another transaction has published the same one.
        """
        if not events:
            return
        try:
            await tx.execute(sql.append, *self.rows(*events, version=version).arguments)
        except UniqueViolation as error:
            if error.constraint != VERSION_INDEX:
                raise
            raise VersionConflict(_conflict(events, version)) from error
        self.appended(tx)

    def rows(self, *events: Event, version: int | None = None) -> OutboxRows:
        """The same for a statement of the caller's own: see `OutboxRows.insert`. Call `appended` too."""
        return encode_events(events, version)

    def appended(self, tx: Transaction) -> None:
        """Wake the relay of this process when `tx` is committed."""
        if self._nudges:
            tx.after_commit(self._nudge)

    def relay(self, broker: Broker | None = None, *, name: str | None = None, **options: float) -> Relay:
        """The relay of this outbox, to be entered; `options` are those of `RelayOptions`."""
        relay = Relay(
            PostgresStore(self._db),
            broker,
            name=name or self._db.name,
            source=self.source,
            options=RelayOptions(**options),  # type: ignore[arg-type]
        )
        self._nudges.append(relay.nudge)
        return relay

    def __repr__(self) -> str:
        return f"Outbox({self._db.name!r}, source={self.source!r})"

    def _nudge(self) -> None:
        for nudge in self._nudges:
            nudge()


def _conflict(events: Sequence[Event], version: int | None) -> str:
    spec = event_spec(events[0])
    return (
        f"event {spec.type!r} with key {spec.key_of(events[0])!r}: version {version} has been published by another"
        " transaction: lock or version-check the aggregate's row before appending"
    )


class Execute(Protocol):
    """What `append` needs of a connection: asyncpg's `execute`."""

    async def execute(self, query: str, /, *args: object) -> object:
        """Run a statement with arguments $1, $2, ..."""
        ...


async def append(
    connection: Execute,
    *,
    topic: str,
    key: str,
    type: str,  # noqa: A002
    payload: object,
    id: UUID | None = None,  # noqa: A002
    version: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> UUID:
    """Write one event on somebody else's asyncpg connection, in its open transaction; returns the event's id.

    `payload` is JSON as `str` or `bytes`, or anything msgspec encodes. None makes a tombstone.
    """
    rows = OutboxRows()
    ident = add(
        rows, topic, key, type, _json(payload, type), id=id, version=version, headers=headers, trace=current_trace()
    )
    await connection.execute(sql.append, *rows.arguments)
    return ident


def _json(payload: object, kind: str) -> str | None:
    if payload is None or isinstance(payload, str):
        return payload
    try:
        return payload.decode() if isinstance(payload, bytes) else msgspec.json.encode(payload).decode()
    except (TypeError, ValueError) as error:
        raise UnusableEvent(f"event {kind!r}: its payload can't be written as JSON: {error}") from error
