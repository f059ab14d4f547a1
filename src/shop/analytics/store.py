"""Facts, figures and generations in PostgreSQL. A generation's tables are partitions, made and dropped with it."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from backstay.db import Database, Queries, Row, Transaction
from shop.analytics.model import CustomerSales, Facts, Funnel, Generation, ProductSales, Ranking, Revenue, State
from shop.kernel import Money

sql = Queries.load(__package__)

TABLES = ("orders", "order_lines")
_RANKINGS = {Ranking.UNITS: "units", Ranking.REVENUE: "revenue"}


async def lock(tx: Transaction, generation: int, order_ids: Sequence[str]) -> None:
    """Hold what a generation knows about these orders until the transaction ends."""
    await tx.execute(sql.lock_orders, generation, order_ids)


async def add(tx: Transaction, generation: int, facts: Sequence[Facts]) -> None:
    """Add the facts of events to a generation; one entry for each order."""
    money = [each.total or each.captured or each.refunded for each in facts]
    lines = [(each.order_id, line) for each in facts for line in each.lines]
    await tx.execute(
        sql.add_facts,
        generation,
        [each.order_id for each in facts],
        [each.customer_id for each in facts],
        [_amount(each.total) for each in facts],
        [each.currency if each else None for each in money],
        [each.created_at for each in facts],
        [each.pending_at for each in facts],
        [each.confirmed_at for each in facts],
        [each.cancelled_at for each in facts],
        [_amount(each.captured) for each in facts],
        [each.refunded_at for each in facts],
        [_amount(each.refunded) for each in facts],
        [each.reserved_at for each in facts],
        [each.rejected_at for each in facts],
        [order_id for order_id, _ in lines],
        [line.sku for _, line in lines],
        [line.name for _, line in lines],
        [line.quantity for _, line in lines],
        [line.amount.amount for _, line in lines],
        [line.amount.currency for _, line in lines],
    )


async def revenue(db: Database, generation: int) -> list[Revenue]:
    """Return the worth of confirmed orders, by currency."""
    return [Revenue(**row) for row in await db.fetch(sql.revenue, generation)]


async def revenue_by_day(db: Database, generation: int, *, since: date, until: date) -> list[Revenue]:
    """Return the same by day, both ends included; days without a move are left out."""
    return [Revenue(**row) for row in await db.fetch(sql.revenue_by_day, generation, since, until)]


async def payments(db: Database, generation: int) -> list[tuple[Money, Money]]:
    """Return captured and refunded amounts, by currency."""
    rows = await db.fetch(sql.payments, generation)
    return [(Money(row["captured"], row["currency"]), Money(row["refunded"], row["currency"])) for row in rows]


async def top_products(
    db: Database, generation: int, ranking: Ranking, *, after: tuple[str, str, str] | None, limit: int
) -> list[ProductSales]:
    """Up to `limit` products behind that place, the best first."""
    value, sku, currency = after or (None, None, None)
    statement = sql.top_products.format(ranking=_RANKINGS[ranking])
    return [_product(row) for row in await db.fetch(statement, generation, value, sku, currency, limit)]


async def customers(
    db: Database, generation: int, *, after: tuple[UUID, str] | None, limit: int
) -> list[CustomerSales]:
    """Up to `limit` customers behind that place, by id."""
    return [_customer(row) for row in await db.fetch(sql.customers, generation, *(after or (None, None)), limit)]


async def funnel(db: Database, generation: int) -> Funnel:
    """Return the progress of orders."""
    [row] = await db.fetch(sql.funnel, generation)
    return Funnel(**row)


async def current(db: Database) -> int:
    """Return the generation that answers."""
    return int(await db.fetchval(sql.current_generation))


async def generations(db: Database) -> list[Generation]:
    """All generations, the newest first."""
    return [_generation(row) for row in await db.fetch(sql.list_generations)]


async def open_generation(tx: Transaction, *, now: datetime) -> Generation | None:
    """Begin the next generation, with tables of its own; None while another is being built.

    Its tables are attached, not created as partitions: that takes no lock on the others' that a reader or a consumer
    waits for, so none of them can wait for it in a circle.
    """
    await tx.execute(sql.short_wait)
    await tx.execute(sql.lock_generations)
    row = await tx.fetchrow(sql.open_generation, now)
    if row is None:
        return None
    opened = _generation(row)
    for table in TABLES:
        number = opened.generation
        await tx.execute(f"CREATE TABLE {table}_{number} (LIKE {table} INCLUDING ALL)")
        await tx.execute(f"ALTER TABLE {table} ATTACH PARTITION {table}_{number} FOR VALUES IN ({number})")
    return opened


async def swap(tx: Transaction, generation: int, *, now: datetime) -> bool:
    """Let a generation that was being built answer from now on; False if it isn't being built."""
    await tx.execute(sql.lock_generations)
    await tx.execute(sql.retire_current, generation)
    return await tx.fetchval(sql.make_current, generation, now) is not None


async def retired(db: Database, *, grace: float) -> list[int]:
    """Generations that were replaced more than `grace` seconds ago, the oldest first."""
    return [int(row["generation"]) for row in await db.fetch(sql.retired, grace)]


async def drop_table(tx: Transaction, table: str, generation: int) -> None:
    """Drop one table of a generation; nothing if it is gone.

    A transaction drops one table: it waits for the lock on its parent while it holds none that others want.
    """
    await tx.execute(sql.short_wait)
    await tx.execute(f"DROP TABLE IF EXISTS {table}_{generation}")


async def forget(db: Database, generation: int) -> bool:
    """Forget a generation whose tables are gone; False if another instance was first."""
    return await db.execute(sql.forget_retired, generation) == "DELETE 1"


def _amount(money: Money | None) -> Decimal | None:
    return money.amount if money else None


def _product(row: Row) -> ProductSales:
    return ProductSales(
        sku=row["sku"],
        name=row["name"],
        orders=row["orders"],
        units=row["units"],
        revenue=Money(row["revenue"], row["currency"]),
    )


def _customer(row: Row) -> CustomerSales:
    return CustomerSales(
        customer_id=row["customer_id"],
        orders=row["orders"],
        confirmed=row["confirmed"],
        revenue=Money(row["revenue"], row["currency"]),
    )


def _generation(row: Row) -> Generation:
    return Generation(
        generation=row["generation"],
        state=State(row["state"]),
        started_at=row["started_at"],
        swapped_at=row["swapped_at"],
    )
