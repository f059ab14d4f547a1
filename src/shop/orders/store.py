"""Orders, their timelines and compensations, and our copy of the catalog, in PostgreSQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from backstay.db import Database, Queries, Row, Transaction
from backstay.outbox import OutboxRows
from shop.kernel import Money
from shop.orders.model import Compensation, Kind, Line, Order, Product, Status, Step

sql = Queries.load(__package__)
SAVE = sql.save.replace("-- told", f", told AS ({OutboxRows.insert(12)})")
MOVE = sql.move.replace("-- told", f", told AS ({OutboxRows.insert(9, where='EXISTS (SELECT FROM moved)')})")
Reader = Database | Transaction

_json = msgspec.json.Encoder(decimal_format="string")
_lines = msgspec.json.Decoder(tuple[Line, ...])
_details = msgspec.json.Decoder(dict[str, object])


@dataclass(frozen=True, slots=True)
class Backlog:
    """What has not ended, and how old the oldest of it is, in seconds."""

    unsettled: int
    oldest_unsettled_age: float
    open_compensations: int
    oldest_compensation_age: float


async def products(tx: Reader, skus: Sequence[str]) -> Mapping[str, Product]:
    """The products of our copy of the catalog, by sku; those it doesn't know are missing."""
    return {row["sku"]: _product(row) for row in await tx.fetch(sql.products, skus)}


async def save(tx: Transaction, order: Order, step: Step, next_check_at: datetime, told: OutboxRows) -> None:
    """A new order, the first line of its timeline, and its event."""
    await tx.execute(
        SAVE,
        order.id,
        order.customer_id,
        order.status,
        _json.encode(order.lines).decode(),
        order.total.amount,
        order.total.currency,
        order.payment_method,
        order.created_at,
        next_check_at,
        step.what,
        _json.encode(step.details).decode(),
        *told.arguments,
    )


async def find(reader: Reader, order_id: UUID) -> Order | None:
    """One order."""
    row = await reader.fetchrow(sql.find, order_id)
    return None if row is None else _order(row)


async def lock(tx: Transaction, order_id: UUID) -> Order | None:
    """One order, locked until the transaction ends."""
    row = await tx.fetchrow(sql.lock, order_id)
    return None if row is None else _order(row)


async def lock_all(tx: Transaction, order_ids: Sequence[str]) -> None:
    """Lock the orders that a batch of events is about."""
    await tx.execute(sql.lock_all, [UUID(order_id) for order_id in order_ids])


async def page(
    db: Database, customer_id: UUID, *, before: UUID | None, status: Status | None, limit: int
) -> list[Order]:
    """A customer's orders, newest first, older than a given one."""
    return [_order(row) for row in await db.fetch(sql.page, customer_id, before, status, limit)]


async def move(tx: Transaction, order: Order, step: Step, told: OutboxRows) -> bool:
    """An order's next version, the line of its timeline, and its event; False if somebody else moved it first."""
    moved = await tx.fetchval(
        MOVE,
        order.id,
        order.status,
        order.payment_id,
        order.reason,
        order.version,
        order.updated_at,
        step.what,
        _json.encode(step.details).decode(),
        *told.arguments,
    )
    return bool(moved)


async def claim_due(db: Database, at: datetime, *, limit: int, first: float, last: float) -> list[Order]:
    """Unsettled orders that are due; nobody else gets them for `first` seconds, doubling to `last`, jittered."""
    return [_order(row) for row in await db.fetch(sql.claim_due, at, limit, first, last)]


async def compensate(tx: Transaction, order_id: UUID, kind: Kind, reason: str, at: datetime) -> None:
    """Write down once what has to be undone at payments."""
    await tx.execute(sql.compensate, order_id, kind, reason, at)


async def claim_compensations(
    db: Database, at: datetime, *, limit: int, first: float, last: float
) -> list[Compensation]:
    """Open compensations that are due, leased as unsettled orders are."""
    rows = await db.fetch(sql.claim_compensations, at, limit, first, last)
    return [
        Compensation(
            order_id=row["order_id"],
            kind=Kind(row["kind"]),
            reason=row["reason"],
            attempts=row["attempts"],
            created_at=row["created_at"],
        )
        for row in rows
    ]


async def close_compensation(tx: Transaction, order_id: UUID, kind: Kind, at: datetime, outcome: str) -> bool:
    """One compensation is done; False if it was closed already."""
    return await tx.fetchval(sql.close_compensation, order_id, kind, at, outcome) is not None


async def close_compensations(tx: Transaction, order_id: UUID, at: datetime, outcome: str) -> None:
    """All compensations of an order are done."""
    await tx.execute(sql.close_compensations, order_id, at, outcome)


async def backlog(db: Database, at: datetime) -> Backlog:
    """What has not ended."""
    row = await db.fetchrow(sql.backlog, at)
    assert row is not None
    return Backlog(*row.values())


async def add_step(tx: Transaction, order_id: UUID, step: Step) -> None:
    """A line of an order's timeline; nothing if its event made one already."""
    details = _json.encode(step.details).decode()
    await tx.execute(sql.add_step, order_id, step.at, step.service, step.what, details, step.event_id)


async def timeline(db: Database, order_id: UUID) -> list[Step]:
    """What happened to an order, in the order of time."""
    return [
        Step(
            at=row["at"],
            service=row["service"],
            what=row["what"],
            details=_details.decode(row["details"]),
            event_id=row["event_id"],
        )
        for row in await db.fetch(sql.timeline, order_id)
    ]


async def upsert_product(tx: Transaction, product: Product) -> None:
    """The product as of this version, unless a newer one is known."""
    price = product.price
    values = (product.name, price.amount, price.currency, product.available, product.version)
    await tx.execute(sql.upsert_product, product.sku, *values)


async def lock_products(tx: Transaction, skus: Sequence[str]) -> None:
    """Lock the products that a batch of events is about."""
    await tx.execute(sql.lock_products, skus)


async def upsert_stock(tx: Transaction, sku: str, available: int, version: int) -> None:
    """The hint of a product's stock as of this version, unless a newer one is known."""
    await tx.execute(sql.upsert_stock, sku, available, version)


async def lock_stock(tx: Transaction, skus: Sequence[str]) -> None:
    """Lock the hints that a batch of events is about."""
    await tx.execute(sql.lock_stock, skus)


def _order(row: Row) -> Order:
    return Order(
        id=row["id"],
        customer_id=row["customer_id"],
        lines=_lines.decode(row["lines"]),
        total=Money(row["total"], row["currency"]),
        payment_method=row["payment_method"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        status=Status(row["status"]),
        payment_id=row["payment_id"],
        reason=row["reason"],
        version=row["version"],
    )


def _product(row: Row) -> Product:
    price = Money(row["price"], row["currency"])
    return Product(row["sku"], row["name"], price, row["available"], row["version"], row["stock"])
