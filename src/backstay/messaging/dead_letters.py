"""Records that could not be handled: kept with their cause, listed, and replayed by the running consumer.

While a record is parked, the later ones of its key are parked behind it, so that nothing overtakes it. `replay` only
asks: the consumer of the group takes what was asked for, in order, with the same handler in the same kind of
transaction; what fails again stays, with its new cause. `discard` lets the key go on without it. Both leave a line in
the audit.
"""

import getpass
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from backstay.db import Database, Row, Transaction
from backstay.messaging.delivery import Delivery, words
from backstay.messaging.inbox import sql
from backstay.messaging.record import Record

LIST_LIMIT = 1000  # dead letters listed or replayed at a time

_ODD = re.compile("[^a-zA-Z0-9._-]")  # what a topic's name may not hold
_NO_CAUSE = RuntimeError("no cause")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be handled.

    cause: kind and message of the last failure; attempts: how often it was tried; replay_requested_at: somebody asked
    for another try; replayed_at: its effect has happened at last.
    """

    id: int
    group: str
    event_id: UUID
    type: str | None
    record: Record
    cause: str
    attempts: int
    parked_at: datetime
    failed_at: datetime
    replay_requested_at: datetime | None
    replayed_at: datetime | None
    waiting: bool = False
    """Nothing is known to be wrong with it: an earlier record of its key is parked, and it comes after that one."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A record that is being parked, as the hook of `Consumer.on_parked` sees it."""

    group: str
    event_id: UUID
    type: str | None
    record: Record
    cause: str
    attempts: int
    waiting: bool

    @property
    def topic(self) -> str:
        """The topic for copies of the dead letter."""
        return _topic(self.record.topic, self.group)


OnParked = Callable[[Transaction, Parked], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Decision:
    """A line of the audit: the operator, the action, its time, and the dead letters (ids) concerned."""

    at: datetime
    actor: str
    action: str
    filters: dict[str, Any]
    letters: tuple[int, ...]


async def list_dead_letters(
    db: Database,
    *,
    ids: Sequence[int] | None = None,
    group: str | None = None,
    type: str | None = None,  # noqa: A002
    topic: str | None = None,
    key: str | None = None,
    cause: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    replayed: bool = False,
    limit: int = LIST_LIMIT,
) -> list[DeadLetter]:
    """Dead letters, oldest first: the open ones, or with `replayed` those whose effect has happened since.

    cause: words of it; since, until: when they were parked (aware). Without a filter all of them.
    """
    chosen = None if ids is None else list(ids)
    place = (topic, None if key is None else key.encode())
    rows = await db.fetch(sql.list_dead_letters, chosen, group, type, replayed, limit, *place, cause, since, until)
    return [dead_letter(row) for row in rows]


async def replay(
    db: Database,
    *,
    ids: Sequence[int] | None = None,
    group: str | None = None,
    type: str | None = None,  # noqa: A002
    topic: str | None = None,
    key: str | None = None,
    cause: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    dry_run: bool = False,
    actor: str | None = None,
    limit: int = LIST_LIMIT,
) -> list[DeadLetter]:
    """Request another try of the open dead letters that match; returns them. `dry_run` requests none.

    Those of a key are tried in their order: one that still fails keeps its successors waiting. What waits for one that
    succeeds follows without being asked for. `actor` is who asks, for the audit (by default the user of this process).
    """
    filters = {"ids": ids, "group": group, "type": type, "topic": topic, "key": key, "cause": cause}
    times = {"since": since, "until": until}
    chosen = await list_dead_letters(
        db, ids=ids, group=group, type=type, topic=topic, key=key, cause=cause, since=since, until=until, limit=limit
    )
    if chosen and not dry_run:
        await _decide(db, sql.request_replay, chosen, actor, {**filters, **times})
    return chosen


async def discard(db: Database, ids: Sequence[int], *, reason: str, actor: str | None = None) -> list[DeadLetter]:
    """Give up these open dead letters: their effect will never happen, and what waits for them is handled."""
    chosen = await list_dead_letters(db, ids=ids)
    if chosen:
        await _decide(db, sql.discard, chosen, actor, {"ids": ids, "reason": reason})
    return chosen


async def dead_letter_topics(db: Database, group: str) -> set[str]:
    """Return the topics for copies of all records that the group has parked."""
    return {_topic(row["topic"], group) for row in await db.fetch(sql.dead_letter_sources, group)}


def _topic(source: str, group: str) -> str:
    return _ODD.sub("-", f"{source}.{group}.dlt")


async def audit(db: Database, *, limit: int = LIST_LIMIT) -> list[Decision]:
    """Return the decisions about dead letters, the latest first."""
    return [
        Decision(row["at"], row["actor"], row["action"], msgspec.json.decode(row["filters"]), tuple(row["letters"]))
        for row in await db.fetch(sql.audit, limit)
    ]


async def _decide(
    db: Database, statement: str, letters: Sequence[DeadLetter], actor: str | None, filters: dict[str, Any]
) -> None:
    asked = {name: value for name, value in filters.items() if value is not None}
    what = msgspec.json.encode(asked).decode()
    await db.execute(statement, [letter.id for letter in letters], actor or _user(), what)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


async def hold_back(tx: Transaction, group: str, deliveries: Sequence[Delivery], *, look: bool) -> None:
    """Mark what follows a parked record of its key: parked before (found by `look`), or parked just now."""
    held = await _held(tx, group, deliveries) if look else set()
    if not held and all(delivery.fault is None for delivery in deliveries):
        for delivery in deliveries:
            delivery.held = False
        return
    for delivery in deliveries:
        place = delivery.place
        delivery.held = place is not None and place in held
        if delivery.fault is not None and place is not None:
            held.add(place)


async def _held(tx: Transaction, group: str, deliveries: Sequence[Delivery]) -> set[tuple[str, bytes]]:
    places = {delivery.place for delivery in deliveries} - {None}
    topics, keys = [place[0] for place in places if place], [place[1] for place in places if place]
    return {(row["topic"], row["key"]) for row in await tx.fetch(sql.held_keys, group, topics, keys)}


async def park(tx: Transaction, group: str, delivery: Delivery, *, holds: bool = False) -> Parked:
    """Keep a delivery whose fault is known, or that is held back; `holds`: it holds back the later ones of its key."""
    record = delivery.record
    type_ = record.header("ce_type")
    waiting = delivery.held and delivery.fault is None
    cause = "held back: an earlier record of its key is parked" if waiting else words(delivery.fault or _NO_CAUSE)
    name = None if type_ is None else _text(type_)
    attempts = 0 if waiting else delivery.attempts
    await tx.execute(
        sql.park,
        group,
        delivery.id,
        name,
        record.topic,
        record.partition or 0,
        record.offset or 0,
        record.timestamp,
        record.key,
        record.value,
        [_clean(name) for name, _ in record.headers],
        [value for _, value in record.headers],
        cause,
        attempts,
        holds and delivery.place is not None,
        waiting,
    )
    return Parked(group, delivery.id, name, record, cause, attempts, waiting)


def dead_letter(row: Row) -> DeadLetter:
    """Return a row of the table."""
    return DeadLetter(
        row["id"],
        row["consumer_group"],
        row["event_id"],
        row["type"],
        _record(row),
        row["cause"],
        row["attempts"],
        row["parked_at"],
        row["failed_at"],
        row["replay_requested_at"],
        row["replayed_at"],
        row["waiting"],
    )


def _record(row: Any) -> Record:
    return Record(
        row["topic"],
        row["key"],
        row["value"],
        tuple(zip(row["header_names"], row["header_values"], strict=True)),
        row["partition"],
        row["offset"],
        row["recorded_at"],
    )


def _text(raw: bytes) -> str:
    return _clean(raw.decode("utf-8", "backslashreplace"))


def _clean(text: str) -> str:
    return text.replace("\0", "\\0")
