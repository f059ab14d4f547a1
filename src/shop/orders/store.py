"""Orders, their timelines and compensations, and our copy of the catalog, in PostgreSQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from backstay.db import Database, Queries, Row, Transaction
from backstay.outbox import OutboxRows
from backstay.service import Answer, IdempotencyKey, idempotency
from shop.kernel import Money
from shop.orders.model import Audited, Compensation, Kind, Line, Order, Product, Status, Step, Unsettled

sql = Queries.load(__package__)
PLACE = sql.place.replace("-- claiming", idempotency.claiming(20)).replace(
    "-- told", f", told AS ({OutboxRows.insert(12, where='EXISTS (SELECT FROM claimed)')})"
)
_TOLD = f", told AS ({OutboxRows.insert(9, where='EXISTS (SELECT FROM moved)')})"
_KEPT = f", kept AS ({idempotency.keeping(17, where='EXISTS (SELECT FROM moved)')})"
MOVE = sql.move.replace("-- told", _TOLD)
SETTLE = sql.move.replace("-- told", _TOLD + _KEPT).replace("-- kept", ", (SELECT count(*) FROM kept) AS kept")
Reader = Database | Transaction

_json = msgspec.json.Encoder(decimal_format="string")
_lines = msgspec.json.Decoder(tuple[Line, ...])
_details = msgspec.json.Decoder(dict[str, object])


@dataclass(frozen=True, slots=True)
class Backlog:
    """Unfinished work, and the age of the oldest in seconds."""

    unsettled: int
    oldest_unsettled_age: float
    open_compensations: int
    oldest_compensation_age: float


async def offered(db: Database, skus: Sequence[str], key: IdempotencyKey) -> tuple[Mapping[str, Product], bool]:
    """Return the known products by sku from our copy of the catalog, and whether the key is known."""
    rows = await db.fetch(sql.offered, skus, key.principal, key.operation, key.key)
    return {row["sku"]: _product(row) for row in rows if row["name"] is not None}, any(row["known"] for row in rows)


async def place(
    tx: Transaction, order: Order, step: Step, first_check: float, told: OutboxRows, claim: tuple[object, ...]
) -> bool:
    """Insert a new order with its key's claim, first timeline entry and event; False if the key is known.

    `first_check` is in seconds from now. One statement: all of it happens or nothing.
    """
    placed = await tx.fetchval(
        PLACE,
        order.id,
        order.customer_id,
        order.status,
        _json.encode(order.lines).decode(),
        order.total.amount,
        order.total.currency,
        order.payment_method,
        order.created_at,
        first_check,
        step.what,
        _json.encode(step.details).decode(),
        *told.arguments,
        *claim,
    )
    return bool(placed)


async def find(reader: Reader, order_id: UUID) -> Order | None:
    """One order."""
    row = await reader.fetchrow(sql.find, order_id)
    return None if row is None else _order(row)


async def lock(tx: Transaction, order_id: UUID) -> Order | None:
    """One order, locked until the transaction ends."""
    row = await tx.fetchrow(sql.lock, order_id)
    return None if row is None else _order(row)


async def lock_open(tx: Transaction, order_ids: Sequence[str]) -> None:
    """Lock those of these orders that news of a payment may move."""
    await tx.execute(sql.lock_open, [UUID(order_id) for order_id in order_ids])


async def confirmed(tx: Transaction, order_ids: Sequence[UUID]) -> set[UUID]:
    """Those of these orders that are confirmed."""
    return {row["id"] for row in await tx.fetch(sql.confirmed, order_ids)}


async def lock_all(tx: Transaction, order_ids: Sequence[str]) -> None:
    """Lock the orders that a batch of events is about."""
    await tx.execute(sql.lock_all, [UUID(order_id) for order_id in order_ids])


async def page(
    db: Database, customer_id: UUID, *, before: UUID | None, status: Status | None, limit: int
) -> list[Order]:
    """Return a customer's orders, newest first, older than a given one."""
    return [_order(row) for row in await db.fetch(sql.page, customer_id, before, status, limit)]


async def move(tx: Transaction, order: Order, step: Step, told: OutboxRows) -> bool:
    """Save an order's next version, its timeline entry and event; False if it was changed meanwhile."""
    return bool(await tx.fetchval(MOVE, *_moved(order, step), *told.arguments))


async def settle(tx: Transaction, order: Order, step: Step, told: OutboxRows, answer: Answer[Any]) -> tuple[bool, bool]:
    """`move` of an order that leaves `created`, with the answer of its checkout, in one statement.

    Whether it moved, and whether the answer was kept: it isn't if no key was claimed for the order.
    """
    kept = idempotency.keeping_arguments(answer, order.id)
    row = await tx.fetchrow(SETTLE, *_moved(order, step), *told.arguments, *kept)
    assert row is not None
    return bool(row["moved"]), bool(row["kept"])


def _moved(order: Order, step: Step) -> tuple[object, ...]:
    return (
        order.id,
        order.status,
        order.payment_id,
        order.reason,
        order.version,
        order.updated_at,
        step.what,
        _json.encode(step.details).decode(),
    )


async def claim_due(db: Database, *, limit: int, first: float, last: float) -> list[Unsettled]:
    """Claim unsettled orders that are due, for `first` seconds, doubling to `last`, jittered."""
    rows = await db.fetch(sql.claim_due, limit, first, last)
    return [Unsettled(_order(row), timedelta(seconds=row["waited"])) for row in rows]


async def compensate(tx: Transaction, order_id: UUID, kind: Kind, reason: str) -> None:
    """Write down once what has to be undone at payments."""
    await tx.execute(sql.compensate, order_id, kind, reason)


async def claim_compensations(db: Database, *, limit: int, first: float, last: float) -> list[Compensation]:
    """Open compensations that are due, leased as unsettled orders are."""
    rows = await db.fetch(sql.claim_compensations, limit, first, last)
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


async def close_compensation(tx: Transaction, order_id: UUID, kind: Kind, outcome: str) -> bool:
    """One compensation is done; False if it was closed already."""
    return await tx.fetchval(sql.close_compensation, order_id, kind, outcome) is not None


async def close_compensations(tx: Transaction, order_id: UUID, outcome: str) -> None:
    """All compensations of an order are done."""
    await tx.execute(sql.close_compensations, order_id, outcome)


async def backlog(db: Database) -> Backlog:
    """Return the unfinished work."""
    row = await db.fetchrow(sql.backlog)
    assert row is not None
    return Backlog(*row.values())


async def add_step(tx: Transaction, order_id: UUID, step: Step) -> None:
    """A line of an order's timeline; nothing if its event made one already."""
    details = _json.encode(step.details).decode()
    await tx.execute(sql.add_step, order_id, step.at, step.service, step.what, details, step.event_id)


async def add_steps(tx: Transaction, steps: Sequence[tuple[UUID, Step]]) -> None:
    """Lines of many orders' timelines; nothing for an event that made one already."""
    if not steps:
        return
    await tx.execute(
        sql.add_steps,
        [order_id for order_id, _ in steps],
        [step.at for _, step in steps],
        [step.service for _, step in steps],
        [step.what for _, step in steps],
        [_json.encode(step.details).decode() for _, step in steps],
        [step.event_id for _, step in steps],
    )


async def timeline(db: Database, order_id: UUID) -> list[Step]:
    """Return the timeline of an order, oldest entry first."""
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


async def audit(db: Database, after: tuple[int, UUID], *, limit: int) -> list[tuple[tuple[int, UUID], Audited]]:
    """Orders that changed after a position, in the order of their changes, each with its own."""
    return [
        (
            (int(row["changed"]), row["id"]),
            Audited(
                id=row["id"],
                status=Status(row["status"]),
                reason=row["reason"],
                total=Money(row["total"], row["currency"]),
                lines=_lines.decode(row["lines"]),
            ),
        )
        for row in await db.fetch(sql.audit, str(after[0]), after[1], limit)
    ]


async def upsert_product(tx: Transaction, product: Product) -> None:
    """The product as of this version, unless a newer one is known."""
    price = product.price
    values = (product.name, price.amount, price.currency, product.available, product.version)
    await tx.execute(sql.upsert_product, product.sku, *values)


async def lock_products(tx: Transaction, skus: Sequence[str]) -> None:
    """Lock the products that a batch of events is about."""
    await tx.execute(sql.lock_products, skus)


async def upsert_stock(tx: Transaction, hints: Mapping[str, tuple[int, int]]) -> None:
    """The hints of stock (available, version) by sku, each unless a newer one is known."""
    values = hints.values()
    await tx.execute(sql.upsert_stock, list(hints), [available for available, _ in values], [v for _, v in values])


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
