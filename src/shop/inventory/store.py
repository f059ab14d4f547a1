"""Stock, reservations and the ledger in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from backstay.db import Database, Queries, Row, Transaction
from backstay.outbox import OutboxRows
from shop.inventory.model import Audited, Change, Decision, Kind, Level, Line, State, Wish

sql = Queries.load(__package__)
_units = msgspec.json.Decoder(dict[str, int])
DECIDE = sql.decide_orders.replace("-- told", f", told AS ({OutboxRows.insert(13)})")


class Moved(RuntimeError):
    """A level or a reservation changed in spite of its lock: nothing may be saved."""


async def create(tx: Transaction, sku: str, *, now: datetime) -> None:
    """A row for a product, with nothing set; an existing one stays as it is."""
    await tx.execute(sql.create_stock, sku, now)


async def lock(tx: Transaction, skus: Sequence[str]) -> dict[str, Level]:
    """Return the levels of all these products, held until the transaction ends; unknown ones are left out."""
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


async def opened(tx: Transaction, order_ids: Sequence[UUID]) -> set[UUID]:
    """Those of these orders that have their row already."""
    return {row["order_id"] for row in await tx.fetch(sql.opened, order_ids)}


async def decide(tx: Transaction, decided: Sequence[tuple[Wish, Decision]], told: OutboxRows, *, now: datetime) -> None:
    """Save the decisions about locked products in their order, and their events. Raises Moved if one isn't new."""
    lines = [(wish.order_id, change) for wish, decision in decided for change in decision.changes]
    skus: dict[str, list[Change]] = {}
    for _, change in lines:
        skus.setdefault(change.after.sku, []).append(change)
    row = await tx.fetchrow(
        DECIDE,
        [wish.order_id for wish, _ in decided],
        [wish.customer_id for wish, _ in decided],
        [decision.state for _, decision in decided],
        now,
        list(skus),
        [sum(change.reserved for change in changes) for changes in skus.values()],
        [changes[0].before.version for changes in skus.values()],
        [changes[-1].after.version for changes in skus.values()],
        [change.after.sku for _, change in lines],
        [change.after.version for _, change in lines],
        [change.reserved for _, change in lines],
        [order_id for order_id, _ in lines],
        *told.arguments,
    )
    assert row is not None
    if row["opened"] != len(decided):
        raise Moved(f"{len(decided)} orders should have been new, {row['opened']} were")
    _check(len(skus), row["moved"])


async def bury(tx: Transaction, order_id: UUID, customer_id: UUID, *, now: datetime) -> bool:
    """Leave a tombstone for a cancelled order; False when it has its row already."""
    return await tx.fetchval(sql.bury_order, order_id, customer_id, now) is not None


async def release(tx: Transaction, order_id: UUID, *, now: datetime) -> dict[str, int]:
    """Mark a reservation released and return the units it held; empty unless it was reserved."""
    if await tx.fetchval(sql.release_reservation, order_id, now) is None:
        return {}
    return {row["sku"]: row["quantity"] for row in await tx.fetch(sql.held_by, order_id)}


async def audit(db: Database, after: tuple[int, UUID], *, limit: int) -> list[tuple[tuple[int, UUID], Audited]]:
    """Reservations that changed after a position, in the order of their changes, each with its own."""
    return [
        (
            (int(row["changed"]), row["order_id"]),
            Audited(
                order_id=row["order_id"],
                state=State(row["state"]),
                reserved=_units.decode(row["reserved"]),
                released=_units.decode(row["released"]),
            ),
        )
        for row in await db.fetch(sql.audit, str(after[0]), after[1], limit)
    ]


def _check(wanted: int, moved: int) -> None:
    if wanted != moved:
        raise Moved(f"{wanted} products should have moved, {moved} did: their rows were not locked")


def _level(row: Row) -> Level:
    return Level(**row)
