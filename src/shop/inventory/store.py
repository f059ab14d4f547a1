"""Stock, reservations and the ledger in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from backstay.db import Database, Queries, Row, Transaction
from backstay.outbox import OutboxRows
from shop.inventory.model import Change, Decision, Kind, Level, Line

sql = Queries.load(__package__)
DECIDE = sql.decide_order.replace("-- told", f", told AS ({OutboxRows.insert(8, where='EXISTS (SELECT FROM opened)')})")


class Moved(RuntimeError):
    """A level changed although its row was not locked: a defect, so nothing may be saved."""


async def create(tx: Transaction, sku: str, *, now: datetime) -> None:
    """A row for a product, with nothing set; an existing one stays as it is."""
    await tx.execute(sql.create_stock, sku, now)


async def lock(tx: Transaction, skus: Sequence[str]) -> dict[str, Level]:
    """The levels of all these products, held until the transaction ends; unknown ones are left out."""
    return {row["sku"]: _level(row) for row in await tx.fetch(sql.lock_stock, skus)}


async def find(db: Database, sku: str) -> Level | None:
    """One product's stock."""
    row = await db.fetchrow(sql.find_stock, sku)
    return _level(row) if row else None


async def page(db: Database, *, after: str | None, limit: int) -> list[Level]:
    """Up to `limit` products behind `after`, by sku."""
    return [_level(row) for row in await db.fetch(sql.list_stock, after, limit)]


async def ledger(db: Database, sku: str, *, before: int | None, limit: int) -> list[Line]:
    """Up to `limit` lines of a product older than version `before`, the newest first."""
    rows = await db.fetch(sql.list_ledger, sku, before, limit)
    return [Line(**{**row, "kind": Kind(row["kind"])}) for row in rows]


async def move(tx: Transaction, changes: Sequence[Change], *, order_id: UUID | None, now: datetime) -> None:
    """Save changes of one kind of locked products, with their ledger lines. Raises Moved if one isn't current."""
    rows = await tx.fetch(
        sql.move_stock,
        [change.after.sku for change in changes],
        [change.on_hand for change in changes],
        [change.reserved for change in changes],
        [change.after.reorder_level for change in changes],
        [change.after.version for change in changes],
        changes[0].kind,
        order_id,
        now,
    )
    _check(len(changes), len(rows))


async def decide(
    tx: Transaction, order_id: UUID, customer_id: UUID, decision: Decision, told: OutboxRows, *, now: datetime
) -> bool:
    """Save what an order gets of locked products and tell it; False, and nothing done, when it has its row already."""
    changes = decision.changes
    row = await tx.fetchrow(
        DECIDE,
        order_id,
        customer_id,
        decision.state,
        [change.after.sku for change in changes],
        [change.reserved for change in changes],
        [change.after.version for change in changes],
        now,
        *told.arguments,
    )
    if row is None or not row["opened"]:
        return False
    _check(len(changes), row["moved"])
    return True


async def bury(tx: Transaction, order_id: UUID, customer_id: UUID, *, now: datetime) -> bool:
    """Leave a tombstone for a cancelled order; False when it has its row already."""
    return await tx.fetchval(sql.bury_order, order_id, customer_id, now) is not None


async def release(tx: Transaction, order_id: UUID, *, now: datetime) -> dict[str, int]:
    """Mark a reservation released and tell what it held; empty unless it was reserved."""
    if await tx.fetchval(sql.release_reservation, order_id, now) is None:
        return {}
    return {row["sku"]: row["quantity"] for row in await tx.fetch(sql.held_by, order_id)}


def _check(wanted: int, moved: int) -> None:
    if wanted != moved:
        raise Moved(f"{wanted} products should have moved, {moved} did: their rows were not locked")


def _level(row: Row) -> Level:
    return Level(**row)
