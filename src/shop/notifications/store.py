"""Notifications and the address book in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from backstay.db import Database, Queries, Row, Transaction
from shop.notifications.model import Audited, Deferred, Due, Kind, Notice, Notification, Refused, Sent, State

sql = Queries.load(__package__)


async def save_address(tx: Transaction, customer_id: UUID, *, email: str, name: str, at: datetime) -> None:
    """Remember where a customer gets mail; older news than what is known changes nothing."""
    await tx.execute(sql.save_address, customer_id, email, name, at)


async def save(tx: Transaction, notices: Sequence[Notice], *, now: datetime) -> None:
    """Messages to send; nothing, where an event had that message already."""
    await tx.execute(
        sql.save_notification,
        [notice.id for notice in notices],
        [notice.event_id for notice in notices],
        [notice.kind for notice in notices],
        [notice.customer_id for notice in notices],
        [notice.order_id for notice in notices],
        [msgspec.json.encode(notice.facts).decode() for notice in notices],
        now,
    )


async def claim(db: Database, *, lease: float, limit: int) -> list[Due]:
    """Claim up to `limit` messages that are due, for `lease` seconds."""
    return [_due(row) for row in await db.fetch(sql.claim_due, lease, limit)]


async def mark_sent(tx: Transaction, sent: Sequence[Sent], *, now: datetime) -> list[Notice]:
    """Record messages that were taken; returns those that were not recorded before."""
    notices = {outcome.due.notice.id: outcome.due.notice for outcome in sent}
    return [notices[row["id"]] for row in await tx.fetch(sql.mark_sent, list(notices), now)]


async def mark_failed(tx: Transaction, refused: Sequence[Refused]) -> None:
    """Record messages that were refused for good."""
    ids = [outcome.due.notice.id for outcome in refused]
    await tx.execute(sql.mark_failed, ids, [outcome.reason for outcome in refused])


async def put_off(tx: Transaction, deferred: Sequence[Deferred]) -> None:
    """Let messages wait for their next turn."""
    ids = [outcome.due.notice.id for outcome in deferred]
    pauses = [outcome.pause for outcome in deferred]
    await tx.execute(sql.put_off, ids, [outcome.reason for outcome in deferred], pauses)


async def page(
    db: Database, customer_id: UUID, *, order_id: UUID | None, before: UUID | None, limit: int
) -> list[Notification]:
    """Up to `limit` of a customer's messages older than `before`, the newest first."""
    return [_notification(row) for row in await db.fetch(sql.list_of_customer, customer_id, order_id, before, limit)]


async def backlog(db: Database) -> tuple[int, float, int]:
    """Return the number of waiting messages, the age of the oldest in seconds, and the number refused for good."""
    [row] = await db.fetch(sql.backlog)
    return row["pending"], row["oldest"], row["failed"]


async def audit(db: Database, after: tuple[int, UUID], *, limit: int) -> list[tuple[tuple[int, UUID], Audited]]:
    """Messages that changed after a position, in the order of their changes, each with its own."""
    return [
        (
            (int(row["changed"]), row["id"]),
            Audited(id=row["id"], order_id=row["order_id"], kind=Kind(row["kind"]), state=State(row["state"])),
        )
        for row in await db.fetch(sql.audit, str(after[0]), after[1], limit)
    ]


def _due(row: Row) -> Due:
    notice = Notice(
        id=row["id"],
        event_id=row["event_id"],
        kind=Kind(row["kind"]),
        customer_id=row["customer_id"],
        order_id=row["order_id"],
        facts=msgspec.json.decode(row["facts"]),
    )
    return Due(notice=notice, email=row["email"], name=row["name"], attempts=row["attempts"])


def _notification(row: Row) -> Notification:
    return Notification(
        id=row["id"],
        kind=Kind(row["kind"]),
        state=State(row["state"]),
        order_id=row["order_id"],
        created_at=row["created_at"],
        sent_at=row["sent_at"],
    )
