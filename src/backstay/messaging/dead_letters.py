"""Records that could not be handled: kept with their cause, listed, and replayed by the running consumer.

`replay` only asks. The consumer of the group takes what was asked for, with the same handler in the same kind of
transaction; what fails again stays, with its new cause.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from backstay.db import Database, Row, Transaction
from backstay.messaging.delivery import Delivery, words
from backstay.messaging.inbox import sql
from backstay.messaging.record import Record

LIST_LIMIT = 1000  # dead letters listed or replayed at a time


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


async def list_dead_letters(
    db: Database,
    *,
    ids: Sequence[int] | None = None,
    group: str | None = None,
    type: str | None = None,  # noqa: A002
    replayed: bool = False,
    limit: int = LIST_LIMIT,
) -> list[DeadLetter]:
    """Dead letters, oldest first: the open ones, or with `replayed` those whose effect has happened since."""
    rows = await db.fetch(sql.list_dead_letters, None if ids is None else list(ids), group, type, replayed, limit)
    return [dead_letter(row) for row in rows]


async def replay(
    db: Database,
    *,
    ids: Sequence[int] | None = None,
    group: str | None = None,
    type: str | None = None,  # noqa: A002
    dry_run: bool = False,
    limit: int = LIST_LIMIT,
) -> list[DeadLetter]:
    """Ask for another try of the open dead letters that fit; returns them. `dry_run` only says which they are.

    A replayed event comes after its successors: its handler must not depend on order, or must see that it is late.
    """
    chosen = await list_dead_letters(db, ids=ids, group=group, type=type, limit=limit)
    if chosen and not dry_run:
        await db.execute(sql.request_replay, [letter.id for letter in chosen])
    return chosen


async def park(tx: Transaction, group: str, delivery: Delivery) -> None:
    """Keep a delivery whose fault is known."""
    record = delivery.record
    type_ = record.header("ce_type")
    await tx.execute(
        sql.park,
        group,
        delivery.id,
        None if type_ is None else _text(type_),
        record.topic,
        record.partition or 0,
        record.offset or 0,
        record.timestamp,
        record.key,
        record.value,
        [_clean(name) for name, _ in record.headers],
        [value for _, value in record.headers],
        words(delivery.fault or RuntimeError("no cause")),
        delivery.attempts,
    )


def dead_letter(row: Row) -> DeadLetter:
    """A row of the table."""
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
