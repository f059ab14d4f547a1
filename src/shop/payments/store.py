"""Payments in PostgreSQL. Every change is conditional: on the order being new, or on the version that was read."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from backstay.db import Database, Queries, Row, Transaction
from backstay.outbox import OutboxRows
from shop.kernel import Money
from shop.payments.model import Attempt, Audited, Payment, Status

sql = Queries.load(__package__)
MOVE = sql.move.replace("-- told", f", told AS ({OutboxRows.insert(13, where='EXISTS (SELECT FROM moved)')})")


async def intend(db: Database, payment: Payment, lease: float) -> bool:
    """Save the decision to charge, leased for so many seconds; False if the order has a payment already."""
    amount = payment.amount
    assert amount is not None
    saved = await db.fetchval(
        sql.intend,
        payment.id,
        payment.order_id,
        payment.customer_id,
        amount.amount,
        amount.currency,
        payment.method,
        payment.created_at,
        lease,
    )
    return saved is not None


async def bury(db: Database, tombstone: Payment) -> bool:
    """Save a tombstone; False if the order has a payment already."""
    saved = await db.fetchval(sql.bury, tombstone.id, tombstone.order_id, tombstone.reason, tombstone.created_at)
    return saved is not None


async def find(db: Database, order_id: UUID) -> Payment | None:
    """Return the payment of an order."""
    row = await db.fetchrow(sql.find, order_id)
    return None if row is None else _payment(row)


async def lock(tx: Transaction, order_id: UUID) -> tuple[Payment, bool] | None:
    """Return the payment of an order, locked, and whether the lease to call the provider is free."""
    row = await tx.fetchrow(sql.lock, order_id)
    return None if row is None else (_payment(row), row["free"])


async def move(
    tx: Transaction,
    before: Payment,
    after: Payment,
    attempt: Attempt | None,
    at: datetime,
    lease: float,
    told: OutboxRows,
) -> bool:
    """Replace `before` by `after`, leased for `lease` seconds, with its event; False if another one moved it first."""
    tried = (attempt.step, attempt.outcome, attempt.reason, attempt.took) if attempt else (None, None, None, None)
    moved = await tx.fetchval(
        MOVE,
        before.id,
        before.version,
        after.status,
        after.reason,
        after.unwanted,
        after.version,
        at,
        lease,
        *tried,
        *told.arguments,
    )
    return bool(moved)


async def call(tx: Transaction, payment_id: UUID, lease: float) -> None:
    """Take the lease to call the provider, for so many seconds."""
    await tx.execute(sql.call, payment_id, lease)


async def rest(db: Database, payment_id: UUID, attempt: Attempt, at: datetime, pause: timedelta) -> None:
    """Give the lease back after a call without an answer; the job comes again after the pause."""
    await db.execute(sql.rest, payment_id, attempt.step, attempt.reason, at, attempt.took, pause.total_seconds())


async def claim_stale(db: Database, *, lease: float, limit: int) -> Sequence[tuple[Payment, int]]:
    """Open payments that are due, leased for so many seconds, each with the number of calls that failed in a row."""
    rows = await db.fetch(sql.claim_stale, lease, limit)
    return [(_payment(row), row["failures"]) for row in rows]


async def request_refund(tx: Transaction, payment: Payment, key: str, at: datetime) -> None:
    """The payment's one refund, open, under that key at the provider."""
    amount = payment.amount
    assert amount is not None
    await tx.execute(sql.request_refund, payment.id, key, amount.amount, amount.currency, payment.reason, at)


async def close_refund(tx: Transaction, payment_id: UUID, at: datetime) -> None:
    """The payment's one refund, done."""
    await tx.execute(sql.close_refund, payment_id, at)


async def open_payments(db: Database) -> tuple[int, float]:
    """Return the number of payments that wait for the provider, and the age of the oldest in seconds."""
    row = await db.fetchrow(sql.open_payments)
    assert row is not None
    return row["pending"], row["oldest"]


async def audit(db: Database, after: tuple[int, UUID], *, limit: int) -> list[tuple[tuple[int, UUID], Audited]]:
    """Payments that changed after a position, in the order of their changes, each with its own."""
    return [
        (
            (int(row["changed"]), row["id"]),
            Audited(
                id=row["id"],
                order_id=row["order_id"],
                status=Status(row["status"]),
                amount=None if row["amount"] is None else Money(row["amount"], row["currency"]),
            ),
        )
        for row in await db.fetch(sql.audit, str(after[0]), after[1], limit)
    ]


async def provider_cursor(db: Database) -> str | None:
    """Return the cursor up to which changes at the provider have been followed."""
    cursor: str | None = await db.fetchval(sql.provider_cursor)
    return cursor


async def lock_provider_cursor(tx: Transaction, expected: str | None) -> bool:
    """Hold the cursor until the transaction ends; False if another one holds it, or has moved it."""
    row = await tx.fetchrow(sql.lock_provider_cursor)
    return row is not None and row["cursor"] == expected


async def move_provider_cursor(tx: Transaction, cursor: str | None) -> None:
    """The changes up to here are recorded."""
    await tx.execute(sql.move_provider_cursor, cursor)


async def still_charged(tx: Transaction, payment_ids: Sequence[UUID]) -> list[tuple[UUID, UUID]]:
    """Return those of these payments that a refund would still move, each with its order, always in the same order."""
    return [(row["id"], row["order_id"]) for row in await tx.fetch(sql.still_charged, payment_ids)]


def _payment(row: Row) -> Payment:
    return Payment(
        id=row["id"],
        order_id=row["order_id"],
        status=Status(row["status"]),
        created_at=row["created_at"],
        customer_id=row["customer_id"],
        amount=None if row["amount"] is None else Money(row["amount"], row["currency"]),
        method=row["method"],
        reason=row["reason"],
        unwanted=row["unwanted"],
        version=row["version"],
    )
