"""Payments in PostgreSQL. Every change is conditional: on the order being new, or on the version that was read."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from backstay.db import Database, Queries, Row, Transaction
from backstay.outbox import OutboxRows
from shop.kernel import Money
from shop.payments.model import Attempt, Payment, Status, refund_key

sql = Queries.load(__package__)
MOVE = sql.move.replace("-- told", f", told AS ({OutboxRows.insert(13, where='EXISTS (SELECT FROM moved)')})")


async def intend(db: Database, payment: Payment, until: datetime) -> bool:
    """Save the decision to charge, leased until then; False if the order has a payment already."""
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
        until,
    )
    return saved is not None


async def bury(db: Database, tombstone: Payment) -> bool:
    """Save a tombstone; False if the order has a payment already."""
    saved = await db.fetchval(sql.bury, tombstone.id, tombstone.order_id, tombstone.reason, tombstone.created_at)
    return saved is not None


async def find(db: Database, order_id: UUID) -> Payment | None:
    """The payment of an order."""
    row = await db.fetchrow(sql.find, order_id)
    return None if row is None else _payment(row)


async def lock(tx: Transaction, order_id: UUID) -> tuple[Payment, datetime] | None:
    """The payment of an order, locked, and until when somebody asks the provider about it."""
    row = await tx.fetchrow(sql.lock, order_id)
    return None if row is None else (_payment(row), row["calling_until"])


async def move(
    tx: Transaction,
    before: Payment,
    after: Payment,
    attempt: Attempt | None,
    at: datetime,
    until: datetime,
    told: OutboxRows,
) -> bool:
    """Replace `before` by `after`, leased until then, with its event; False if somebody else moved it first."""
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
        until,
        *tried,
        *told.arguments,
    )
    return bool(moved)


async def call(tx: Transaction, payment_id: UUID, until: datetime) -> None:
    """Take the lease to ask the provider."""
    await tx.execute(sql.call, payment_id, until)


async def rest(db: Database, payment_id: UUID, attempt: Attempt, at: datetime, pause: timedelta) -> None:
    """Give the lease back after a call without an answer; the job comes again after the pause."""
    await db.execute(sql.rest, payment_id, attempt.step, attempt.reason, at, attempt.took, pause.total_seconds())


async def claim_stale(db: Database, at: datetime, until: datetime, limit: int) -> Sequence[tuple[Payment, int]]:
    """Open payments that are due, leased until then, each with the number of calls that failed in a row."""
    rows = await db.fetch(sql.claim_stale, at, until, limit)
    return [(_payment(row), row["failures"]) for row in rows]


async def request_refund(tx: Transaction, payment: Payment, at: datetime) -> None:
    """The payment's one refund, open."""
    amount = payment.amount
    assert amount is not None
    key = refund_key(payment.id)
    await tx.execute(sql.request_refund, payment.id, key, amount.amount, amount.currency, payment.reason, at)


async def close_refund(tx: Transaction, payment_id: UUID, at: datetime) -> None:
    """The payment's one refund, done."""
    await tx.execute(sql.close_refund, payment_id, at)


async def open_payments(db: Database) -> tuple[int, datetime | None]:
    """How many payments wait for the provider, and since when the oldest of them does."""
    row = await db.fetchrow(sql.open_payments)
    assert row is not None
    return row["pending"], row["oldest"]


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
